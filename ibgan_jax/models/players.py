"""What IB-GAN shares with its baselines: G_theta, q_phi and D_w as Flax modules."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ibgan_jax.errors import UserError
from ibgan_jax.models.base import ByPlayer, Hparams, Settings
from ibgan_jax.networks.dcgan import ConvBlocks, Generator, Head, front_blocks, head_blocks

INITIALIZERS = {
    "normal": nn.initializers.normal(0.02),
    "orthogonal": nn.initializers.orthogonal(column_axis=-1),
}


def rmsprop(learning_rate: jax.Array, momentum: jax.Array) -> optax.GradientTransformation:
    """PyTorch's RMSprop(lr, alpha=0.99, eps=1e-8, momentum), which optax's own is not."""
    return optax.chain(
        optax.scale_by_rms(decay=0.99, eps=1e-8, eps_in_sqrt=False),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(learning_rate),
    )


@dataclasses.dataclass(frozen=True)
class Players(Settings):
    """Modules, variables and optimizers of G_theta, q_phi and D_w. Defaults are dSprites'.

    Attributes:
      generator_width, discriminator_width: g and d of the authors' tables.
      shared_front: q_phi and D_w share their three strided blocks, trained by D's loss alone
        (the paper's text, CelebA and Chairs), instead of two trunks (the dSprites code).
      initializer: "normal" (0.02) or "orthogonal".
      arc: G_theta takes each r_j as a uniform angle, `dcgan.on_arc`. No paper has this.
      pixel_shuffle: G_theta gives, and q_phi and D_w take, blocks of 2 x 2 pixels, and each network
        has one layer less. At g = d = 8 a step takes 0.72 times as long on a CPU
        (`results/benchmarks/pixel_shuffle-cpu2.json`). No paper has this either.
    """

    generator_width: int = 16
    discriminator_width: int = 16
    shared_front: bool = False
    initializer: str = "normal"
    arc: bool = False
    pixel_shuffle: bool = False

    players = ("generator", "reconstructor", "discriminator")

    def __post_init__(self) -> None:
        """Raises UserError naming a setting that cannot be."""
        super().__post_init__()
        if self.initializer not in INITIALIZERS:
            known = ", ".join(INITIALIZERS)
            raise UserError(f"network.initializer={self.initializer!r} is not one of: {known}")

    @cached_property
    def generator(self) -> Generator:
        init = INITIALIZERS[self.initializer]
        return Generator(self.generator_width, self.channels, init, self.arc, self.pixel_shuffle)

    @cached_property
    def front(self) -> ConvBlocks:
        """What D_w and q_phi share; without parameters when they share no block."""
        blocks = front_blocks(self.discriminator_width, self.pixel_shuffle)
        blocks = blocks if self.shared_front else ()
        return ConvBlocks(blocks, INITIALIZERS[self.initializer], self.pixel_shuffle)

    def _head(self, outputs: int, hidden: int) -> Head:
        d = self.discriminator_width
        if self.shared_front:
            blocks, hidden = head_blocks(d, (4, 4)), 0
        else:
            blocks = front_blocks(d, self.pixel_shuffle) + head_blocks(d, (8,))
        return Head(blocks, outputs, hidden, INITIALIZERS[self.initializer])

    @cached_property
    def discriminator(self) -> Head:
        return self._head(1, 0)

    @cached_property
    def reconstructor(self) -> Head:
        return self._head(self.z_dim, 16 * self.discriminator_width)

    def init(self, key: jax.Array) -> ByPlayer:
        """Variables {player: {"params", "batch_stats"}}; the shared front belongs to D_w."""
        keys = jax.random.split(key, 5)
        images = jnp.zeros((1, *self.image_shape))
        front = self.front.init(keys[0], images, True)
        features = self.front.apply(front, images, False)
        head = self.discriminator.init(keys[1], features, True)
        made = {
            **self._init_sources(keys[2], keys[3]),
            "reconstructor": self.reconstructor.init(keys[4], features, True),
        }
        kinds = ("params", "batch_stats")
        variables = {p: {k: v.get(k, {}) for k in kinds} for p, v in made.items()}
        variables["discriminator"] = {
            k: {"front": front.get(k, {}), "head": head.get(k, {})} for k in kinds
        }
        return variables

    def _init_sources(self, key_e: jax.Array, key_g: jax.Array) -> ByPlayer:
        """Variables of the players that make images of z."""
        del key_e
        return {"generator": self.generator.init(key_g, jnp.zeros((1, self.code_dim)), True)}

    def optimizers(self, hparams: Hparams) -> dict[str, optax.GradientTransformation]:
        """RMSProp for each player."""
        momentum = hparams["momentum"]
        return {player: rmsprop(hparams[f"lr_{player}"], momentum) for player in self.players}

    def generate(self, variables: ByPlayer, codes: jax.Array) -> jax.Array:
        """G_theta(r): [B, r] -> [B, 64, 64, channels]."""
        return self.generator.apply(variables["generator"], codes, False)

    def reconstruct(self, variables: ByPlayer, images: jax.Array) -> jax.Array:
        """q_phi's mean zhat(x): [B, 64, 64, C] -> [B, z], BatchNorm in evaluation mode."""
        front = {kind: part["front"] for kind, part in variables["discriminator"].items()}
        features = self.front.apply(front, images, False)
        return self.reconstructor.apply(variables["reconstructor"], features, False)
