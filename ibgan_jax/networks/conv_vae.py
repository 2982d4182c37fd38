"""The convolutional encoder and decoder of disentanglement_lib (Locatello et al. 2019, Table 1).

64 x 64 pixels; TensorFlow's default initialisation (Glorot uniform, biases 0); no normalisation.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from ibgan_jax.networks.convolution import Conv, ConvTranspose

GLOROT = nn.initializers.glorot_uniform()


class ConvEncoder(nn.Module):
    """q(z|x): images [B, 64, 64, C] -> mean and log-variance, each [B, outputs]."""

    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # TensorFlow's "same" padding: 1 on each side of a 4 x 4 kernel, none for 2 x 2.
        for features, size, pad in ((32, 4, 1), (32, 4, 1), (64, 2, 0), (64, 2, 0)):
            x = nn.relu(Conv(features, size, 2, pad, kernel_init=GLOROT)(x))
        x = nn.relu(nn.Dense(256, kernel_init=GLOROT)(x.reshape(len(x), -1)))  # of [B, 4, 4, 64]
        mean = nn.Dense(self.outputs, kernel_init=GLOROT, name="mean")(x)
        return mean, nn.Dense(self.outputs, kernel_init=GLOROT, name="log_variance")(x)


class ConvDecoder(nn.Module):
    """p(x|z): codes [B, z] -> Bernoulli logits [B, 64, 64, channels]."""

    channels: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        for features in (256, 4 * 4 * 64):
            z = nn.relu(nn.Dense(features, kernel_init=GLOROT)(z))
        x = z.reshape(-1, 4, 4, 64)
        for features in (64, 32, 32):
            x = nn.relu(ConvTranspose(features, 4, 2, 1, kernel_init=GLOROT)(x))
        return ConvTranspose(self.channels, 4, 2, 1, kernel_init=GLOROT)(x)  # [B, 64, 64, C]
