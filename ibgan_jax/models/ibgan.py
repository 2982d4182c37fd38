"""IB-GAN (Jeon et al., AAAI 2021): a GAN whose generator holds an information bottleneck.

Eq. 11: min over G, q, e and max over D of L_GAN(D, G) - (E[log q(z|x)] - beta KL(e(r|z) || m(r)))

with z ~ N(0, I), r ~ e_psi(r|z), x = G_theta(r), m(r) = N(0, I) and q_phi a unit-variance Gaussian.

Deviations from the printed paper, all taken from Eq. 11 or from the authors' code, which produced
the tables: the reconstruction term of Algorithm 1 has the wrong sign (g_theta and g_psi would push
zhat away from z) and its g_w swaps the labels of real and generated images, so Eq. 11 and standard
labels are followed; the generator's loss is the non-saturating one; on dSprites q_phi has a trunk
of its own.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from ibgan_jax import objectives
from ibgan_jax.models.base import ByPlayer, Hparams
from ibgan_jax.models.players import Players

DEFAULT_HPARAMS = {
    "beta": 0.141,
    "lr_encoder": 5e-5,
    "lr_generator": 5e-5,
    "lr_reconstructor": 5e-5,
    "lr_discriminator": 1e-6,
    "noise_start": 1.0,
    "noise_end": 0.0,
    "noise_steps": 100_000.0,
    "label_low": 1.0,
    "label_high": 1.0,
    "kl_guard": 100.0,
    "kl_guard_above": 20.0,
}


@dataclasses.dataclass(frozen=True)
class IBGAN(Players):
    """The four players with the gradients of Eq. 11 and the representation mu_r(zhat(x))."""

    hparams = DEFAULT_HPARAMS
    headline = ("bounds/lower", "bounds/upper", "probability/real", "probability/generated")

    def schedule(self, hparams: Hparams, step: jax.Array) -> Hparams:
        """Adds `noise`: sigma falls linearly from noise_start to noise_end over noise_steps.

        The first step counts as iteration 1, as in the authors' code.
        """
        part = jnp.clip((step + 1) / hparams["noise_steps"], 0.0, 1.0)
        noise = hparams["noise_start"] + (hparams["noise_end"] - hparams["noise_start"]) * part
        return {**hparams, "noise": noise}

    def gradients(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        images: jax.Array,
        key: jax.Array,
        hparams: Hparams,
    ) -> tuple[ByPlayer, ByPlayer, dict[str, jax.Array]]:
        """The four gradients of Algorithm 1, all taken at the same point.

        Real and generated images pass through D_w and q_phi as two batches, generated ones first,
        so BatchNorm's statistics are apart. Every forward pass happens once: D_w's at generated
        images is pulled back twice, with the discriminator's cotangent to its parameters and with
        the generator's to the images.

        Args:
          params, batch_stats: keyed by player.
          images: real ones, [B, 64, 64, channels] in [-1, 1].
          key: of this step alone.
          hparams: from `schedule`, so with `noise`.

        Returns:
          gradients keyed by player, batch_stats keyed by player, scalar metrics: losses, D(x) and
          D(G) as probabilities, I_L, I_U and KL(e(r_i|z) || m(r_i)) in nats, the noise level.
        """
        key_z, key_r, key_generated, key_real, key_labels = jax.random.split(key, 5)
        noise, batch = hparams["noise"], images.shape[0]
        z = jax.random.normal(key_z, (batch, self.z_dim), images.dtype)

        def produce(psi: dict, theta: dict) -> tuple[tuple, tuple]:
            """Noisy images and KL_i [B, r] of z -> r -> x; new batch_stats of e and G."""
            (mean, log_variance), e = _train(self.encoder, psi, batch_stats["encoder"], z)
            r = objectives.reparametrise(key_r, mean, log_variance)
            x, g = _train(self.generator, theta, batch_stats["generator"], r)
            noisy = objectives.instance_noise(key_generated, x, noise)
            return (noisy, objectives.gaussian_kl(mean, log_variance)), (e, g)

        (generated, kl), pull_back, (e_stats, g_stats) = jax.vjp(
            produce, params["encoder"], params["generator"], has_aux=True
        )
        at_generated, x_cotangent, stats, shown = self._at_generated(
            params, batch_stats, z, generated
        )
        upper = jnp.mean(jnp.sum(kl, axis=-1))
        kl_cotangent = jnp.full_like(kl, self._kl_weight(hparams, upper) / batch)
        e_gradient, g_gradient = pull_back((x_cotangent, kl_cotangent))

        real = objectives.instance_noise(key_real, images, noise)
        labels = jax.random.uniform(
            key_labels, (batch,), images.dtype, hparams["label_low"], hparams["label_high"]
        )
        at_real, stats, shown_real = self._at_real(params, stats, real, labels)

        gradients = {
            "encoder": e_gradient,
            "generator": g_gradient,
            "reconstructor": at_generated["reconstructor"],
            "discriminator": jax.tree.map(jnp.add, at_real, at_generated["discriminator"]),
        }
        shown |= {
            "loss/discriminator": shown.pop("loss/generated") + shown_real.pop("loss/real"),
            "bounds/upper": upper,
            "noise": noise,
            **{f"kl/{i}": mean for i, mean in enumerate(jnp.mean(kl, axis=0))},
            **shown_real,
        }
        return gradients, {"encoder": e_stats, "generator": g_stats, **stats}, shown

    def _at_generated(
        self, params: ByPlayer, batch_stats: ByPlayer, z: jax.Array, generated: jax.Array
    ) -> tuple[ByPlayer, jax.Array, ByPlayer, dict[str, jax.Array]]:
        """D_w and q_phi at noisy generated images [B, H, W, C] made from z [B, z].

        Returns:
          gradients of q_phi and of D_w (their shares), the cotangent of the images for e and G,
          batch_stats of both players, metrics.
        """
        w, d_stats = params["discriminator"], batch_stats["discriminator"]
        features, pull_front, front = _vjp(self.front, w["front"], d_stats["front"], generated)
        logits, pull_head, head = _vjp(self.discriminator, w["head"], d_stats["head"], features)
        z_mean, pull_q, q_stats = _vjp(
            self.reconstructor, params["reconstructor"], batch_stats["reconstructor"], features
        )
        d_loss, d_cotangent = _mean_and_gradient(
            lambda x: objectives.adversarial(x[:, 0], 0.0), logits
        )
        g_loss, g_cotangent = _mean_and_gradient(
            lambda x: objectives.adversarial(x[:, 0], 1.0), logits
        )
        q_loss, q_cotangent = _mean_and_gradient(lambda x: objectives.reconstruction(z, x), z_mean)

        head_gradient, to_features = pull_head(d_cotangent)
        front_gradient, _ = pull_front(to_features)
        _, to_features_g = pull_head(g_cotangent)
        q_gradient, to_features_q = pull_q(q_cotangent)
        _, x_cotangent = pull_front(to_features_g + to_features_q)

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
            "bounds/lower": jnp.mean(objectives.lower_bound(z, z_mean)),
        }
        return gradients, x_cotangent, stats, metrics

    def _at_real(
        self, params: ByPlayer, batch_stats: ByPlayer, real: jax.Array, labels: jax.Array
    ) -> tuple[dict, ByPlayer, dict[str, jax.Array]]:
        """D_w at noisy real images [B, H, W, C] with labels [B].

        q_phi sees them only to keep its running statistics current.

        Returns:
          D_w's share of its gradient, batch_stats of D_w and q_phi, metrics.
        """
        d_stats = batch_stats["discriminator"]

        def loss(w: dict) -> tuple[jax.Array, tuple]:
            features, front = _train(self.front, w["front"], d_stats["front"], real)
            logits, head = _train(self.discriminator, w["head"], d_stats["head"], features)
            value = jnp.mean(objectives.adversarial(logits[:, 0], labels))
            return value, (features, logits, {"front": front, "head": head})

        (value, (features, logits, d_stats)), gradient = jax.value_and_grad(loss, has_aux=True)(
            params["discriminator"]
        )
        _, q_stats = _train(
            self.reconstructor, params["reconstructor"], batch_stats["reconstructor"], features
        )
        metrics = {"loss/real": value, "probability/real": jnp.mean(jax.nn.sigmoid(logits))}
        return gradient, {"discriminator": d_stats, "reconstructor": q_stats}, metrics

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
        self, variables: ByPlayer, key: jax.Array, count: int, hparams: Hparams
    ) -> dict[str, jax.Array]:
        """I_L, I_U and KL_i in nats over `count` draws, BatchNorm in evaluation mode.

        The instance noise in force is added to the generated images, as the authors do.
        """
        key_z, key_r, key_noise = jax.random.split(key, 3)
        z = jax.random.normal(key_z, (count, self.z_dim))
        mean, log_variance = self.encoder.apply(variables["encoder"], z, False)
        r = objectives.reparametrise(key_r, mean, log_variance)
        x = objectives.instance_noise(key_noise, self.generate(variables, r), hparams["noise"])
        kl = objectives.gaussian_kl(mean, log_variance)
        lower = objectives.lower_bound(z, self.reconstruct(variables, x))
        return {
            "lower": jnp.mean(lower),
            "upper": jnp.mean(jnp.sum(kl, axis=-1)),
            "kl": jnp.mean(kl, axis=0),
        }


def _train(module: nn.Module, params: dict, batch_stats: dict, x: jax.Array) -> tuple:
    """(outputs, new batch_stats) in training mode."""
    variables = {"params": params, "batch_stats": batch_stats}
    outputs, changed = module.apply(variables, x, True, mutable=["batch_stats"])
    return outputs, changed.get("batch_stats", {})


def _vjp(module: nn.Module, params: dict, batch_stats: dict, x: jax.Array) -> tuple:
    """(outputs, pull-back to (params, x), new batch_stats) in training mode."""
    return jax.vjp(lambda p, x: _train(module, p, batch_stats, x), params, x, has_aux=True)


def _mean_and_gradient(loss, x: jax.Array) -> tuple[jax.Array, jax.Array]:  # noqa: ANN001
    return jax.value_and_grad(lambda x: jnp.mean(loss(x)))(x)
