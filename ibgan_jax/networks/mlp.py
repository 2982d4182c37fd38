"""Fully connected networks."""

from __future__ import annotations

import jax
from flax import linen as nn

from ibgan_jax.networks.convolution import Initializer
from ibgan_jax.networks.normalisation import BatchNorm


class StochasticEncoder(nn.Module):
    """e_psi(r|z): an MLP from z [B, z] to the mean and log-variance of r, each [B, r].

    IB-GAN section 4.1; sizes and BatchNorm as in the authors' code.
    """

    outputs: int
    hidden: tuple[int, ...] = (32, 32)
    batch_norm: bool = False
    kernel_init: Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        for features in self.hidden:
            z = nn.Dense(features, kernel_init=self.kernel_init)(z)
            z = BatchNorm()(z, train) if self.batch_norm else nn.relu(z)
        z = nn.Dense(2 * self.outputs, kernel_init=self.kernel_init)(z)
        return z[:, : self.outputs], z[:, self.outputs :]


class CodeDiscriminator(nn.Module):
    """D(z): codes [B, z] -> logits [B] that z comes from q(z), not from the product of marginals.

    FactorVAE's (Kim and Mnih 2018, appendix A): six layers of 1000 units, leaky ReLU(0.2), and two
    outputs whose difference is the logit.
    """

    hidden: tuple[int, ...] = (1000,) * 6

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        init = nn.initializers.glorot_uniform()
        for features in self.hidden:
            z = nn.leaky_relu(nn.Dense(features, kernel_init=init)(z), 0.2)
        z = nn.Dense(2, kernel_init=init)(z)
        return z[:, 0] - z[:, 1]
