"""IB-GAN (Jeon et al., AAAI 2021): a GAN whose generator holds an information bottleneck.

Eq. 11: min over G, q, e and max over D of L_GAN(D, G) - (E[log q(z|x)] - beta KL(e(r|z) || m(r)))

with z ~ N(0, I), r ~ e_psi(r|z), x = G_theta(r), m(r) = N(0, I) and q_phi a unit-variance Gaussian.

Deviations from the printed paper, all taken from Eq. 11 or from the authors' code, which produced
the tables: the reconstruction term of Algorithm 1 has the wrong sign (g_theta and g_psi would push
zhat away from z) and its g_w swaps the labels of real and generated images, so Eq. 11 and standard
labels are followed; the generator's loss is the non-saturating one; on dSprites q_phi has a trunk
of its own.

Two changes that no version of IB-GAN has are off by default; `docs/recipe.md` says what for. With
`hparams.capacity` each dimension of r costs max(0, capacity - KL_i) / 2 beside beta KL_i, so that
none carries less. `hparams.cascade_*` let the dimensions begin one after another (the information
cascade of Jeong and Song, ICML 2019); until then r_i is noise from m(r), `cascade_noise` times.
Where the first begins alone, a large `cascade_sideways` leaves it only what can be read up and
down.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import ClassVar

import jax
import jax.numpy as jnp

from ibgan_jax import objectives
from ibgan_jax.errors import UserError
from ibgan_jax.models import adversarial
from ibgan_jax.models.base import ByPlayer, Hparams
from ibgan_jax.models.passes import train
from ibgan_jax.models.players import INITIALIZERS
from ibgan_jax.networks.mlp import StochasticEncoder

DEFAULT_HPARAMS = {
    **adversarial.DEFAULT_HPARAMS,
    "beta": 0.141,
    "lr_encoder": 5e-5,
    "kl_guard": 100.0,
    "kl_guard_above": 20.0,
    "capacity": 0.0,
    "capacity_steps": 1.0,
    "cascade_first": 2.0,
    "cascade_from": 0.0,
    "cascade_every": 0.0,
    "cascade_last": 0.0,
    "cascade_noise": 1.0,
    "cascade_sideways": 1.0,
}


@dataclasses.dataclass(frozen=True)
class IBGAN(adversarial.Adversarial):
    """The four players with the gradients of Eq. 11 and the representation mu_r(zhat(x)).

    Attributes:
      z_dim, r_dim: dimensions of the noise z and of the representation r.
      encoder_hidden, encoder_batch_norm: of the MLP e_psi.
    """

    z_dim: int = 16
    r_dim: int = 10
    encoder_hidden: tuple[int, ...] = (32, 32)
    encoder_batch_norm: bool = False

    players = ("encoder", "generator", "reconstructor", "discriminator")
    sources = ("encoder", "generator")
    hparams: ClassVar[dict] = DEFAULT_HPARAMS
    grid: ClassVar[dict] = {"beta": tuple(round(0.99 * i / 14, 6) for i in range(15))}
    headline = ("bounds/lower", "bounds/upper", "probability/real", "probability/generated")
    share = "kl"
    symbol = "r"

    @property
    def code_dim(self) -> int:
        return self.r_dim

    @cached_property
    def encoder(self) -> StochasticEncoder:
        init = INITIALIZERS[self.initializer]
        return StochasticEncoder(
            self.r_dim, tuple(self.encoder_hidden), self.encoder_batch_norm, init
        )

    def _init_sources(self, key_e: jax.Array, key_g: jax.Array) -> ByPlayer:
        encoder = self.encoder.init(key_e, jnp.zeros((1, self.z_dim)), True)
        return {"encoder": encoder, **super()._init_sources(key_e, key_g)}

    def check_hparams(self, hparams: dict[str, float]) -> None:
        """Raises UserError naming numbers that do not fit together."""
        super().check_hparams(hparams)
        first = hparams["cascade_first"]
        if first < 1 or first % 1:
            raise UserError(f"hparams.cascade_first={first} must be a whole number, 1 or more")
        if hparams["capacity_steps"] < 1:
            raise UserError(f"hparams.capacity_steps={hparams['capacity_steps']} must be 1 or more")

    def schedule(self, hparams: Hparams, step: jax.Array) -> Hparams:
        """Adds `awake` [r]: 1 for each dimension of r that has begun, else 0.

        The first `cascade_first` begin at once, one more at step `cascade_from` and one every
        `cascade_every` steps after it. The last one waits for step `cascade_last` where that is
        later. With the default, 0 for all three, all begin at once. Each one's `capacity` [r] grows
        over `capacity_steps` from there. Before `cascade_from`, `sideways` is `cascade_sideways`.
        `represent` shows a dimension that has not begun as e_psi has it.
        """
        after = hparams["cascade_from"]
        later = jnp.arange(self.r_dim) - hparams["cascade_first"]
        begins = jnp.where(later < 0, 0.0, after + later * hparams["cascade_every"])
        begins = begins.at[-1].max(hparams["cascade_last"])
        grown = jnp.clip((step - begins) / hparams["capacity_steps"], 0.0, 1.0)
        return {
            **super().schedule(hparams, step),
            "awake": (step >= begins).astype(jnp.float32),
            "capacity": hparams["capacity"] * grown,
            "sideways": jnp.where(step < after, hparams["cascade_sideways"], 1.0),
        }

    def produce(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        z: jax.Array,
        key: jax.Array,
        hparams: Hparams,
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[ByPlayer, dict[str, jax.Array]]]:
        """z -> r ~ e_psi(r|z) -> G_theta(r), at the cost of beta I_U; I_U and KL_i in nats."""
        posterior, e_stats = train(self.encoder, params["encoder"], batch_stats["encoder"], z)
        r, kl = self._draw(key, posterior, hparams)
        x, g_stats = train(self.generator, params["generator"], batch_stats["generator"], r)
        upper, each = jnp.mean(jnp.sum(kl, axis=-1)), jnp.mean(kl, axis=0)
        shown = {"bounds/upper": upper, **{f"kl/{i}": mean for i, mean in enumerate(each)}}
        missing = jnp.sum(jnp.maximum(hparams["capacity"] - each, 0.0))
        cost = self._kl_weight(hparams, upper) * upper + 0.5 * missing
        return (x, cost), ({"encoder": e_stats, "generator": g_stats}, shown)

    def _draw(
        self, key: jax.Array, posterior: tuple[jax.Array, jax.Array], hparams: Hparams
    ) -> tuple[jax.Array, jax.Array]:
        """(r, KL_i) of e_psi's means and log-variances, [B, r] each: r_i ~ e_psi(r_i | z).

        A dimension that has not begun is `cascade_noise` times noise from m(r) and costs nothing.
        """
        mean, log_variance = (x * hparams["awake"] for x in posterior)
        r = objectives.reparametrise(key, mean, log_variance)
        r = r * jnp.maximum(hparams["awake"], hparams["cascade_noise"])
        return r, objectives.gaussian_kl(mean, log_variance)

    def _kl_weight(self, hparams: Hparams, upper: jax.Array) -> jax.Array:
        """beta; with beta = 0 the authors weigh the KL by 100 while it is 20 or more.

        Without it r can grow without bound. `hparams.kl_guard=0` switches it off.
        """
        guarded = (hparams["beta"] == 0.0) & (upper >= hparams["kl_guard_above"])
        return hparams["beta"] + jnp.where(guarded, hparams["kl_guard"], 0.0)

    def represent(self, variables: ByPlayer, images: jax.Array) -> jax.Array:
        """The mean of e(r | zhat) at q's mean zhat(x), without noise: [B, 64, 64, C] -> [B, r]."""
        mean, _ = self.encoder.apply(
            variables["encoder"], self.reconstruct(variables, images), False
        )
        return mean

    def bounds(
        self, variables: ByPlayer, key: jax.Array, images: jax.Array, hparams: Hparams
    ) -> dict[str, jax.Array]:
        """I_L, I_U and KL_i in nats over as many draws of z as there are images.

        q_phi reads generated images that are moved and noisy, as `seen` makes them at this step.
        BatchNorm is in evaluation mode. The real images [B, H, W, C] themselves are not looked at.
        """
        key_z, key_r, key_noise = jax.random.split(key, 3)
        z = jax.random.normal(key_z, (len(images), self.z_dim))
        posterior = self.encoder.apply(variables["encoder"], z, False)
        r, kl = self._draw(key_r, posterior, hparams)
        x = self.seen(key_noise, self.generate(variables, r), hparams)[-1]
        lower = objectives.lower_bound(z, self.reconstruct(variables, x))
        return {
            "lower_bound": jnp.mean(lower),
            "upper_bound": jnp.mean(jnp.sum(kl, axis=-1)),
            "kl": jnp.mean(kl, axis=0),
        }
