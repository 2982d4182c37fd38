"""Fully connected networks."""

from __future__ import annotations

import jax
from flax import linen as nn

from ibgan_jax.networks.convolution import Initializer


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
            if self.batch_norm:
                z = nn.BatchNorm(use_running_average=not train, momentum=0.9)(z)
            z = nn.relu(z)
        z = nn.Dense(2 * self.outputs, kernel_init=self.kernel_init)(z)
        return z[:, : self.outputs], z[:, self.outputs :]
