"""One update of IB-GAN and of its baselines: what reaches G_theta, q_phi and D_w, and from where.

min over G, q (and e) and max over D of L_GAN(D, G) - lambda (E[log q(z|x)] - cost), with
z ~ N(0, I), q_phi a unit-variance Gaussian and the `cost` of making images from z (IB-GAN's
beta KL(e(r|z) || m(r)), else 0). lambda is `hparams.information`; the paper has 1. D_w and q_phi
see images with instance noise. Those of q_phi can also be moved at random (`network.shift`,
`network.zoom`) and be noisier than D_w's, which no paper has; `docs/recipe.md` says what for.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ibgan_jax import objectives
from ibgan_jax.errors import UserError
from ibgan_jax.models import schedules
from ibgan_jax.models.base import ByPlayer, Hparams
from ibgan_jax.models.passes import mean_and_gradient, train, vjp
from ibgan_jax.models.players import Players

DEFAULT_HPARAMS = {
    "lr_generator": 5e-5,
    "lr_reconstructor": 5e-5,
    "lr_discriminator": 1e-6,
    "momentum": 0.9,
    **schedules.DEFAULT_HPARAMS,
    "label_low": 1.0,
    "label_high": 1.0,
    "information": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Adversarial(Players):
    """G_theta(z) against D_w, with q_phi reading z back; IB-GAN puts e_psi between z and G_theta.

    Attributes:
      shift, zoom: of `objectives.moved`, for the images that q_phi sees in training; shift is
        (down, right) in pixels. 0 leaves them in their place.
      noise_for_d: the instance noise of D_w's images over that of q_phi's.

    Class attributes:
      sources: the players that make images of z, by `produce`.
      informed: whether q_phi's gradient goes on to the sources.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 0.0
    noise_for_d: float = 1.0

    hparams: ClassVar[dict] = DEFAULT_HPARAMS
    recipe: ClassVar[dict] = {"steps": 150_000}
    batches = 1
    sources = ("generator",)
    informed = True

    def __post_init__(self) -> None:
        """Raises UserError naming a setting that cannot be."""
        super().__post_init__()
        shift = self.shift
        if not (isinstance(shift, tuple) and len(shift) == 2 and all(map(_is_spread, shift))):
            raise UserError(
                f"network.shift={shift} must be two numbers of 0 or more: (down, right)"
            )
        for name in ("zoom", "noise_for_d"):
            if not _is_spread(getattr(self, name)):
                raise UserError(f"network.{name}={getattr(self, name)} must be a number, 0 or more")
        if self.two_views and self.shared_front:
            raise UserError(
                f"network.shift={shift}, zoom={self.zoom} and noise_for_d={self.noise_for_d} need "
                "a reconstructor with a trunk of its own: network.shared_front=False"
            )

    @property
    def two_views(self) -> bool:
        """Whether D_w and q_phi see different images in training."""
        return any(self.shift) or self.zoom != 0 or self.noise_for_d != 1

    def check_hparams(self, hparams: dict[str, float]) -> None:
        """Raises UserError naming numbers that do not fit together."""
        if hparams["label_low"] > hparams["label_high"]:
            raise UserError("hparams.label_low must not be above hparams.label_high")
        schedules.check(hparams)
        if hparams["momentum"] >= 1:
            raise UserError(f"hparams.momentum={hparams['momentum']} must be below 1")

    def schedule(self, hparams: Hparams, step: jax.Array) -> Hparams:
        """Adds `noise` and `sideways`, which multiplies q_phi's shift to the right.

        The noise and the learning rates fall as `schedules.noise` and `schedules.rates` say.
        """
        noise = schedules.noise(hparams, step)
        rates = schedules.rates(hparams, step, self.players)
        return {**hparams, **rates, "noise": noise, "sideways": jnp.ones_like(noise)}

    def produce(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        z: jax.Array,
        key: jax.Array,
        hparams: Hparams,
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[ByPlayer, dict[str, jax.Array]]]:
        """z [B, z] -> (images [B, H, W, C], cost []), (batch_stats of the sources, metrics)."""
        del key, hparams
        x, stats = train(self.generator, params["generator"], batch_stats["generator"], z)
        return (x, jnp.zeros((), x.dtype)), ({"generator": stats}, {})

    def seen(self, key: jax.Array, images: jax.Array, hparams: Hparams) -> tuple[jax.Array, ...]:
        """Adds the instance noise to images [B, H, W, C]: (what D_w sees, what q_phi sees).

        q_phi's images are moved before the same draw of the noise is added. Where both players see
        the same images (not `two_views`) the tuple has them once.

        Args:
          key: of these images alone.
          images: in [-1, 1].
          hparams: from `schedule`, so with `noise` and `sideways`.
        """
        noise = hparams["noise"]
        by_d = objectives.instance_noise(key, images, self.noise_for_d * noise)
        if not self.two_views:
            return (by_d,)
        shift = (self.shift[0], self.shift[1] * hparams["sideways"])
        images = objectives.moved(jax.random.fold_in(key, 1), images, shift, self.zoom)
        return by_d, objectives.instance_noise(key, images, noise)

    def gradients(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        images: jax.Array,
        key: jax.Array,
        hparams: Hparams,
    ) -> tuple[ByPlayer, ByPlayer, dict[str, jax.Array]]:
        """Every player's gradient (Algorithm 1 of Jeon et al.), all taken at the same point.

        Real and generated images pass through D_w and q_phi as two batches, generated ones first,
        so BatchNorm's statistics are apart. Every forward pass happens once: D_w's at generated
        images is pulled back twice, with the discriminator's cotangent to its parameters and with
        the generator's to the images.

        Args:
          params, batch_stats: keyed by player.
          images: real ones, [B, 64, 64, channels] in [-1, 1].
          key: of this step alone.
          hparams: from `schedule`.

        Returns:
          gradients keyed by player, batch_stats keyed by player, scalar metrics: losses, D(x) and
          D(G) as probabilities, I_L and what `produce` shows, in nats, the noise level.
        """
        key_z, key_r, key_generated, key_real, key_labels = jax.random.split(key, 5)
        batch = images.shape[0]
        z = jax.random.normal(key_z, (batch, self.z_dim), images.dtype)

        def sources(params: ByPlayer) -> tuple[tuple, tuple]:
            (x, cost), aux = self.produce(params, batch_stats, z, key_r, hparams)
            return (self.seen(key_generated, x, hparams), cost), aux

        (generated, cost), pull_back, (source_stats, shown_sources) = jax.vjp(
            sources, {player: params[player] for player in self.sources}, has_aux=True
        )
        at_generated, x_cotangents, stats, shown = self._at_generated(
            params, batch_stats, z, generated, hparams["information"]
        )
        (source_gradients,) = pull_back((x_cotangents, hparams["information"].astype(cost.dtype)))

        real = self.seen(key_real, images, hparams)
        labels = jax.random.uniform(
            key_labels, (batch,), images.dtype, hparams["label_low"], hparams["label_high"]
        )
        at_real, stats, shown_real = self._at_real(params, stats, real, labels)

        gradients = {
            **source_gradients,
            "reconstructor": at_generated["reconstructor"],
            "discriminator": jax.tree.map(jnp.add, at_real, at_generated["discriminator"]),
        }
        shown |= {
            "loss/discriminator": shown.pop("loss/generated") + shown_real.pop("loss/real"),
            "noise": hparams["noise"],
            **shown_sources,
            **shown_real,
        }
        return gradients, {**source_stats, **stats}, shown

    def _at_generated(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        z: jax.Array,
        generated: tuple[jax.Array, ...],
        information: jax.Array,
    ) -> tuple[ByPlayer, tuple[jax.Array, ...], ByPlayer, dict[str, jax.Array]]:
        """D_w and q_phi at what they see (`seen`) of images [B, H, W, C] made from z [B, z].

        The images' cotangents have q_phi's share `information` times; q_phi's own gradient is
        whole.

        Returns:
          gradients of q_phi and of D_w (their shares), the cotangents of `generated` for the
          sources, batch_stats of both players, metrics.
        """
        w, d_stats = params["discriminator"], batch_stats["discriminator"]
        features, pull_front, front = vjp(self.front, w["front"], d_stats["front"], generated[0])
        logits, pull_head, head = vjp(self.discriminator, w["head"], d_stats["head"], features)
        features_q, pull_own = features, None
        if len(generated) == 2:  # then the front has no parameters
            features_q, pull_own = jax.vjp(lambda x: self.front.apply({}, x, True), generated[1])
        z_mean, pull_q, q_stats = vjp(
            self.reconstructor, params["reconstructor"], batch_stats["reconstructor"], features_q
        )
        d_loss, d_cotangent = mean_and_gradient(
            lambda x: objectives.adversarial(x[:, 0], 0.0), logits
        )
        g_loss, g_cotangent = mean_and_gradient(
            lambda x: objectives.adversarial(x[:, 0], 1.0), logits
        )
        q_loss, q_cotangent = mean_and_gradient(lambda x: objectives.reconstruction(z, x), z_mean)

        head_gradient, to_features = pull_head(d_cotangent)
        front_gradient, _ = pull_front(to_features)
        _, to_features_g = pull_head(g_cotangent)
        q_gradient, to_features_q = pull_q(q_cotangent)
        by_q = information * to_features_q if self.informed else jnp.zeros_like(to_features_q)
        if pull_own is None:
            x_cotangents = (pull_front(to_features_g + by_q)[1],)
        else:
            x_cotangents = (pull_front(to_features_g)[1], *pull_own(by_q))

        gradients = {
            "reconstructor": q_gradient,
            "discriminator": {"front": front_gradient, "head": head_gradient},
        }
        stats = {"reconstructor": q_stats, "discriminator": {"front": front, "head": head}}
        metrics = {
            "loss/generated": d_loss,
            "loss/generator": g_loss,
            "loss/reconstructor": q_loss,
            "probability/generated": jnp.mean(jax.nn.sigmoid(logits)),
            **self._read_back(z, z_mean),
        }
        return gradients, x_cotangents, stats, metrics

    def _read_back(self, z: jax.Array, z_mean: jax.Array) -> dict[str, jax.Array]:
        """Metrics of what q_phi reads of z, in nats."""
        return {"bounds/lower": jnp.mean(objectives.lower_bound(z, z_mean))}

    def _at_real(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        real: tuple[jax.Array, ...],
        labels: jax.Array,
    ) -> tuple[dict, ByPlayer, dict[str, jax.Array]]:
        """D_w at what it sees (`seen`) of real images [B, H, W, C], with labels [B].

        q_phi sees them only to keep its running statistics current.

        Returns:
          D_w's share of its gradient, batch_stats of D_w and q_phi, metrics.
        """
        d_stats = batch_stats["discriminator"]

        def loss(w: dict) -> tuple[jax.Array, tuple]:
            features, front = train(self.front, w["front"], d_stats["front"], real[0])
            logits, head = train(self.discriminator, w["head"], d_stats["head"], features)
            value = jnp.mean(objectives.adversarial(logits[:, 0], labels))
            return value, (features, logits, {"front": front, "head": head})

        (value, (features, logits, d_stats)), gradient = jax.value_and_grad(loss, has_aux=True)(
            params["discriminator"]
        )
        if len(real) == 2:
            features = self.front.apply({}, real[1], True)
        _, q_stats = train(
            self.reconstructor, params["reconstructor"], batch_stats["reconstructor"], features
        )
        metrics = {"loss/real": value, "probability/real": jnp.mean(jax.nn.sigmoid(logits))}
        return gradient, {"discriminator": d_stats, "reconstructor": q_stats}, metrics


def _is_spread(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < float("inf")
