"""The ConvNet whose features stand in for Inception's in FID on dSprites."""

from __future__ import annotations

import jax
from flax import linen as nn

from ibgan_jax.networks.conv_vae import GLOROT
from ibgan_jax.networks.convolution import Conv


class FactorNet(nn.Module):
    """Images [B, 64, 64, C] in [-1, 1] -> (features [B, width], logits [B, size] of each factor).

    ID-GAN (Lee et al. 2020, appendix C.1) takes FID on dSprites from a ConvNet that predicts the
    true factors; the paper's layers are not known to us, and these are our own. The features are
    the penultimate activations, after their ReLU; each factor has one categorical head on them.

    dSprites' orientation cannot be told with certainty, so its accuracy cannot reach 1: of its 40
    values the first and the last coincide for every shape, the ellipse looks the same after half a
    turn and the square after a quarter.

    Attributes:
      factor_sizes: how many values each factor has.
      width: of the features.
    """

    factor_sizes: tuple[int, ...]
    width: int = 128

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        for features in (32, 32, 64, 64):
            x = nn.relu(Conv(features, 4, 2, 1, kernel_init=GLOROT)(x))
        x = x.reshape(len(x), -1)  # of [B, 4, 4, 64]
        features = nn.relu(nn.Dense(self.width, kernel_init=GLOROT, name="features")(x))
        heads = tuple(
            nn.Dense(size, kernel_init=GLOROT, name=f"factor_{k}")(features)
            for k, size in enumerate(self.factor_sizes)
        )
        return features, heads
