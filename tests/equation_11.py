"""Eq. 11 of IB-GAN written out with lax convolutions: the reference for its gradients.

Each network takes (params, running statistics, x) and returns (outputs, new running statistics);
BatchNorm is in training mode.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.ndimage import map_coordinates

PLAYERS = ("encoder", "generator", "reconstructor", "discriminator")
STRIDED = ((4, 2, 1), (4, 2, 1), (4, 2, 1))


def batch_norm(params, stats, x):
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    variance = jnp.mean((x - mean) ** 2, axes)
    y = (x - mean) / jnp.sqrt(variance + 1e-5) * params["scale"] + params["bias"]
    batch = {"mean": mean, "var": variance}
    return y, {name: 0.9 * stats[name] + 0.1 * batch[name] for name in batch}


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def conv(params, x, size, stride, pad):
    layout = ("NHWC", "HWIO", "NHWC")
    assert params["kernel"].shape[:2] == (size, size)
    y = lax.conv_general_dilated(
        x, params["kernel"], (stride, stride), [(pad, pad)] * 2, dimension_numbers=layout
    )
    return y + params.get("bias", 0.0)


def conv_transpose(params, x, size, stride, pad):
    padding = [(size - 1 - pad, size - 1 - pad)] * 2
    y = lax.conv_transpose(x, params["kernel"], (stride, stride), padding, transpose_kernel=True)
    return y + params.get("bias", 0.0)


def relu(x):
    return jnp.where(x > 0, x, 0.0)


def leaky_relu(x):
    return jnp.where(x > 0, x, 0.2 * x)


def encoder(params, stats, z):
    new = {}
    for i in range(2):
        z = dense(params[f"Dense_{i}"], z)
        if (name := f"BatchNorm_{i}") in params:
            z, new[name] = batch_norm(params[name], stats[name], z)
        z = relu(z)
    return jnp.split(dense(params["Dense_2"], z), 2, axis=-1), new


def on_arc(r):
    """Uniform angles between -60 and 60 degrees, as points on a circle of radius sqrt(2)."""
    angle = np.pi * 2 / 3 * (jax.scipy.stats.norm.cdf(r) - 0.5)
    return np.sqrt(2) * jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def shuffled(x):
    """Makes 2 x 2 pixels of the channels (row, column, c) of each place of [B, H, W, 4 C]."""
    batch, height, width, depth = x.shape
    pixels = jnp.zeros((batch, 2 * height, 2 * width, depth // 4), x.dtype)
    for i, part in enumerate(jnp.split(x, 4, -1)):
        pixels = pixels.at[:, i // 2 :: 2, i % 2 :: 2].set(part)
    return pixels


def unshuffled(x):
    """Undoes `shuffled`."""
    return jnp.concatenate([x[:, a::2, b::2] for a in range(2) for b in range(2)], -1)


def generator(params, stats, r):
    new = {}
    layers = [partial(dense, params[f"Dense_{i}"]) for i in range(2)]
    geometry = [(3, 1), (3, 1), (4, 2), (4, 2)]
    if "ConvTranspose_4" not in params:
        geometry.pop()
    for i, (size, stride) in enumerate(geometry):
        layers.append(
            lambda x, i=i, size=size, stride=stride: conv_transpose(
                params[f"ConvTranspose_{i}"], x, size, stride, 1
            )
        )
    x = on_arc(r) if len(params["Dense_0"]["kernel"]) == 2 * r.shape[-1] else r
    for i, layer in enumerate(layers):
        name = f"BatchNorm_{i}"
        x, new[name] = batch_norm(params[name], stats[name], layer(x))
        x = relu(x)
        if i == 1:
            x = x.reshape(len(x), 8, 8, -1)
    x = conv_transpose(params[f"ConvTranspose_{len(geometry)}"], x, 4, 2, 1)
    return jnp.tanh(x if x.shape[1] == 64 else shuffled(x)), new


def conv_blocks(params, stats, x, geometry, first_normalised):
    new, norms = {}, 0
    for i, (size, stride, pad) in enumerate(geometry):
        x = conv(params[f"Conv_{i}"], x, size, stride, pad)
        if i > 0 or first_normalised:
            name = f"BatchNorm_{norms}"
            x, new[name] = batch_norm(params[name], stats[name], x)
            norms += 1
        x = leaky_relu(x)
    return x, new


def front(params, stats, x, pixel_shuffle):
    x = unshuffled(x) if pixel_shuffle else x
    if not params:
        return x, {}
    return conv_blocks(params, stats, x, STRIDED[pixel_shuffle:], False)


def head(params, stats, x):
    if x.shape[1] > 8:
        strided = STRIDED if x.shape[1] == 64 else STRIDED[1:]
        geometry, first_normalised = (*strided, (3, 1, 1), (8, 1, 0)), False
    else:
        geometry, first_normalised = ((3, 1, 1), (3, 1, 1), (8, 1, 0)), True
    blocks = "ConvBlocks_0"
    new = {}
    x, new[blocks] = conv_blocks(params[blocks], stats[blocks], x, geometry, first_normalised)
    last = "Conv_0"
    if "BatchNorm_0" in params:
        x, new["BatchNorm_0"] = batch_norm(
            params["BatchNorm_0"], stats["BatchNorm_0"], conv(params["Conv_0"], x, 1, 1, 0)
        )
        x, last = leaky_relu(x), "Conv_1"
    return conv(params[last], x, 1, 1, 0)[:, 0, 0], new


def draws(key, model, batch):
    """z, eps, the noise on generated and on real images, uniform numbers for the labels."""
    keys = jax.random.split(key, 5)
    image = (batch, 64, 64, model.channels)
    shapes = ((batch, model.z_dim), (batch, model.r_dim), image, image)
    normals = [jax.random.normal(k, s) for k, s in zip(keys[:4], shapes, strict=True)]
    return (*normals, jax.random.uniform(keys[4], (batch,)))


def corrupted(x, noise):
    x = x + noise
    return jnp.where(x > 1, 1.0, jnp.where(x < -1, -1.0, x))


def resampled(key, images, model, sideways):
    """Images as q sees them: each enlarged at random about its centre of brightness, and moved."""
    keys = jax.random.split(key)
    draws = jax.random.normal(keys[0], (2, len(images), 1))[..., 0]
    moves = jnp.asarray(model.shift)[:, None] * draws * jnp.stack([1.0, sideways])[:, None]
    factors = jnp.exp(model.zoom * jax.random.normal(keys[1], (len(images), 1))[:, 0])
    at = jnp.arange(64)

    def one(image, move, factor):
        bright = jnp.mean(image, -1) + 1
        mesh = jnp.meshgrid(at, at, indexing="ij")
        centre = [jnp.sum(x * bright) / jnp.sum(bright) for x in mesh]
        grid = [(x - c - d) / factor + c for x, c, d in zip(mesh, centre, move, strict=True)]
        channels = [
            map_coordinates(image[..., c], grid, 0, mode="reflect") for c in range(model.channels)
        ]
        return jnp.stack(channels, -1)

    return jax.vmap(one)(images, moves.T, factors)


def produce(psi, theta, stats, eps, z, awake, times):
    (mean, log_variance), e_stats = encoder(psi, stats["encoder"], z)
    mean, log_variance = jnp.where(awake, mean, 0.0), jnp.where(awake, log_variance, 0.0)
    sigma = jnp.exp(log_variance / 2)
    r = jnp.where(awake, mean + sigma * eps, times * eps)
    x, g_stats = generator(theta, stats["generator"], r)
    kl = -jnp.log(sigma) + (sigma**2 + mean**2) / 2 - 0.5
    return x, kl, {"encoder": e_stats, "generator": g_stats}


def discriminate(w, stats, x, pixel_shuffle):
    features, front_stats = front(w["front"], stats["front"], x, pixel_shuffle)
    logits, head_stats = head(w["head"], stats["head"], features)
    return jax.nn.sigmoid(logits[:, 0]), features, {"front": front_stats, "head": head_stats}


def losses(model, params, stats, images, key, hparams):
    """L_D(w), L_GEQ(psi, theta, phi), and everything seen on the way."""
    z, eps, noise_generated, noise_real, uniform = draws(key, model, len(images))
    level = hparams["noise"]
    awake, times = hparams["awake"] > 0, hparams["cascade_noise"]
    x, kl, new = produce(params["encoder"], params["generator"], stats, eps, z, awake, times)
    keys = jax.random.split(key, 5)
    generated, real = (
        [
            corrupted(x, model.noise_for_d * level * noise),
            corrupted(
                resampled(jax.random.fold_in(k, 1), x, model, hparams["sideways"]), level * noise
            ),
        ]
        for k, x, noise in ((keys[2], x, noise_generated), (keys[3], images, noise_real))
    )
    labels = hparams["label_low"] + (hparams["label_high"] - hparams["label_low"]) * uniform

    w, phi, shuffle = params["discriminator"], params["reconstructor"], model.pixel_shuffle
    d_generated, at_generated, d_stats = discriminate(
        w, stats["discriminator"], generated[0], shuffle
    )
    d_real, at_real, new["discriminator"] = discriminate(w, d_stats, real[0], shuffle)
    if not model.shared_front:
        at_generated, at_real = (front({}, {}, x, shuffle)[0] for x in (generated[1], real[1]))
    z_mean, q_stats = head(phi, stats["reconstructor"], at_generated)
    _, new["reconstructor"] = head(phi, q_stats, at_real)

    upper = jnp.mean(jnp.sum(kl, -1))
    guarded = (hparams["beta"] == 0) & (upper >= hparams["kl_guard_above"])
    beta = jnp.where(guarded, 100.0, hparams["beta"])
    generator_loss = jnp.mean(-jnp.log(d_generated))
    squares = jnp.sum((z - z_mean) ** 2, -1)
    on_real = jnp.mean(-labels * jnp.log(d_real) - (1 - labels) * jnp.log(1 - d_real))
    loss_d = on_real - jnp.mean(jnp.log(1 - d_generated))
    cost = beta * upper + jnp.sum(jax.nn.relu(hparams["capacity"] - jnp.mean(kl, 0))) / 2
    loss_geq = generator_loss + hparams["information"] * (jnp.mean(squares) / 2 + cost)
    seen = {
        "loss/discriminator": loss_d,
        "loss/generator": generator_loss,
        "loss/reconstructor": jnp.mean(squares) / 2,
        "probability/real": jnp.mean(d_real),
        "probability/generated": jnp.mean(d_generated),
        "bounds/lower": jnp.mean(jnp.sum(z**2, -1) - squares) / 2,
        "bounds/upper": upper,
        "noise": level,
        **{f"kl/{i}": jnp.mean(kl[:, i]) for i in range(model.r_dim)},
    }
    return loss_d, loss_geq, (seen, new)


def reference(model, params, stats, images, key, hparams):
    """Each loss by the players that descend it; then (statistics, metrics)."""

    def both(params):
        loss_d, loss_geq, (seen, new) = losses(model, params, stats, images, key, hparams)
        return (loss_d, loss_geq), (new, seen)

    _, pull_back, (new, seen) = jax.vjp(both, params, has_aux=True)
    one, zero = jnp.ones(()), jnp.zeros(())
    by_d, by_geq = (pull_back(weights)[0] for weights in ((one, zero), (zero, one)))
    # q's own loss has no weight.
    q = jax.tree.map(lambda x: x / hparams["information"], by_geq["reconstructor"])
    return {**by_geq, "reconstructor": q, "discriminator": by_d["discriminator"]}, new, seen


def scattered(tree, seed):
    """Weights away from their initial values, so that no gradient is tiny and none is alike."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])))
        positive = name in ("scale", "var")
        return jnp.asarray(positive + rng.uniform(-0.5, 0.5, leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, tree)
