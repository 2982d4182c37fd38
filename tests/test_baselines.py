"""GAN, InfoGAN and the VAEs: gradients against autodiff of what the papers write, in float64."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from double import double_precision

from ibgan_jax import models, objectives
from ibgan_jax.errors import UserError

BATCH = 4
SIZES = {
    "gan": {"z_dim": 3, "generator_width": 2, "discriminator_width": 2},
    "infogan": {"z_dim": 3, "generator_width": 2, "discriminator_width": 2},
    "vae": {"z_dim": 3},
    "beta_vae": {"z_dim": 3},
    "factor_vae": {"z_dim": 3, "discriminator_hidden": (5, 4)},
    "beta_tcvae": {"z_dim": 3, "dataset_size": 50},
}
GANS, VAES = ("gan", "infogan"), ("vae", "beta_vae", "factor_vae", "beta_tcvae")


@pytest.fixture(scope="module", autouse=True)
def double():
    with double_precision():
        yield


def setting(name):
    """(model, params, batch_stats, images, key, hparams), all float64 and away from their start."""
    model = models.get(name, **SIZES[name])
    rng = np.random.default_rng(0)
    variables = jax.eval_shape(model.init, jax.random.key(0))

    def scatter(path, leaf):
        if path[-1].key in ("var", "scale"):
            return jnp.asarray(rng.uniform(0.5, 1.2, leaf.shape))
        width = 0.8 / np.sqrt(max(np.prod(leaf.shape[:-1]), 4))
        return jnp.asarray(rng.uniform(-width, width, leaf.shape))

    variables = jax.tree_util.tree_map_with_path(scatter, variables)
    images = jnp.asarray(rng.uniform(-1.0, 1.0, (BATCH * model.batches, 64, 64, 1)))
    hparams = {k: jnp.asarray(v, jnp.float64) for k, v in model.hparams.items()}
    return (
        model,
        {p: v["params"] for p, v in variables.items()},
        {p: v["batch_stats"] for p, v in variables.items()},
        images,
        jax.random.key(3),
        model.schedule(hparams, jnp.asarray(0)),
    )


def assert_close(actual, expected, tolerance=1e-9):
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    floor = 1e-3 * max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(expected))
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.max(np.abs(a - e)) <= tolerance * max(np.max(np.abs(e)), floor)


@functools.cache
def shown_gradients(name):
    """(gradients as returned, gradients by autodiff of the losses shown, what is shown)."""
    model, params, stats, images, key, hparams = setting(name)

    def loss(player, shown):
        if name in VAES and player != "discriminator":
            return shown["loss/reconstruction"] + shown["loss/regulariser"]
        informed = shown["loss/reconstructor"] if (name, player) == ("infogan", "generator") else 0
        return shown[f"loss/{player}"] + informed

    # GAN differs from InfoGAN in G alone, and compiling takes long.
    players = ("generator",) if name == "gan" else model.players

    def losses(params):
        returned, _, shown = model.gradients(params, stats, images, key, hparams)
        return [loss(player, shown) for player in players], (returned, shown)

    @jax.jit
    def compute(params):
        _, pull_back, (returned, shown) = jax.vjp(losses, params, has_aux=True)
        expected = {
            player: pull_back([jnp.asarray(float(p == player)) for p in players])[0][player]
            for player in players
        }
        return returned, expected, shown

    return jax.device_get(compute(params))


@pytest.mark.parametrize("name", GANS)
def test_each_player_of_a_gan_descends_its_own_loss(name):
    returned, expected, _ = shown_gradients(name)
    assert returned.keys() == {"generator", "reconstructor", "discriminator"}
    assert_close({player: returned[player] for player in expected}, expected)


def test_only_infogan_tells_its_generator_what_q_read():
    gan, infogan = shown_gradients("gan")[0], shown_gradients("infogan")[0]
    assert_close(gan["reconstructor"], infogan["reconstructor"])
    assert_close(gan["discriminator"], infogan["discriminator"])
    apart = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), gan["generator"], infogan["generator"])
    assert max(jax.tree.leaves(apart)) > 1e-3


@pytest.mark.parametrize("name", VAES)
def test_each_player_of_a_vae_descends_its_own_loss(name):
    returned, expected, shown = shown_gradients(name)
    assert_close(returned, expected)
    share = [shown[f"kl/{i}"] for i in range(3)]
    np.testing.assert_allclose(sum(share), shown["bounds/upper"], rtol=1e-12)
    np.testing.assert_allclose(
        shown["elbo"], -shown["loss/reconstruction"] - shown["bounds/upper"], rtol=1e-12
    )


class Encoder(nn.Module):
    """disentanglement_lib's, of Flax's own layers, with this package's parameter names."""

    @nn.compact
    def __call__(self, x):
        for i, (features, size) in enumerate(((32, 4), (32, 4), (64, 2), (64, 2))):
            x = nn.Conv(features, (size, size), (2, 2), "SAME", name=f"Conv_{i}")(x)
            x = nn.relu(x)
        x = nn.relu(nn.Dense(256, name="Dense_0")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="mean")(x), nn.Dense(3, name="log_variance")(x)


class Decoder(nn.Module):
    """disentanglement_lib's, of Flax's own layers, with this package's parameter names."""

    @nn.compact
    def __call__(self, z):
        z = nn.relu(nn.Dense(256, name="Dense_0")(z))
        x = nn.relu(nn.Dense(1024, name="Dense_1")(z)).reshape(-1, 4, 4, 64)
        for i, features in enumerate((64, 32, 32, 1)):
            name = f"ConvTranspose_{i}"
            x = nn.ConvTranspose(features, (4, 4), (2, 2), transpose_kernel=True, name=name)(x)
            x = nn.relu(x) if i < 3 else x
        return x


def written_out(name, vae, params, images, key, hparams):
    """The loss as the papers write it, one sum for each term."""
    x = (images[:BATCH] + 1) / 2
    if name == "factor_vae":
        key = jax.random.split(key, 3)[0]
    mean, log_variance = Encoder().apply({"params": vae["encoder"]}, x)
    sigma = jnp.exp(log_variance / 2)
    z = mean + sigma * jax.random.normal(key, mean.shape, mean.dtype)
    p = nn.sigmoid(Decoder().apply({"params": vae["decoder"]}, z))
    likelihood = jnp.sum(x * jnp.log(p) + (1 - x) * jnp.log(1 - p), axis=(1, 2, 3))
    kl = jnp.sum((mean**2 + sigma**2 - 1) / 2 - jnp.log(sigma), axis=1)
    if name == "beta_tcvae":
        total = 0.0
        for i in range(BATCH):
            density = jnp.exp(-(((z[i] - mean) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
            joint = jnp.sum(jnp.prod(density, axis=1)) / (50 * BATCH)
            total += jnp.log(joint) - jnp.sum(jnp.log(jnp.sum(density, axis=0) / (50 * BATCH)))
        extra = (hparams["beta"] - 1) * total / BATCH
    elif name == "factor_vae":
        h = z
        for i in range(2):
            layer = params["discriminator"][f"Dense_{i}"]
            h = h @ layer["kernel"] + layer["bias"]
            h = jnp.where(h > 0, h, 0.2 * h)
        layer = params["discriminator"]["Dense_2"]
        belief = nn.softmax(h @ layer["kernel"] + layer["bias"])
        extra = hparams["gamma"] * jnp.mean(jnp.log(belief[:, 0] / belief[:, 1]))
    else:
        extra = (hparams["beta"] - 1) * jnp.mean(kl)
    return -jnp.mean(likelihood) + jnp.mean(kl) + extra


value_and_grad = jax.jit(jax.value_and_grad(written_out, argnums=1), static_argnums=0)


@pytest.mark.parametrize("name", VAES)
def test_vae_losses_and_gradients_equal_the_papers_written_out(name):
    _, params, _, images, key, hparams = setting(name)
    returned, _, shown = shown_gradients(name)
    vae = {player: params[player] for player in ("encoder", "decoder")}
    formula = "beta_vae" if name == "vae" else name  # the same but for the number beta
    loss, expected = value_and_grad(formula, vae, params, images, key, hparams)
    ours = shown["loss/reconstruction"] + shown["loss/regulariser"]
    np.testing.assert_allclose(ours, loss, rtol=1e-11)
    assert_close({player: returned[player] for player in vae}, expected)


def test_factor_vaes_discriminator_tells_the_first_batch_from_the_permuted_second():
    model, params, _, images, key, _ = setting("factor_vae")
    shown = shown_gradients("factor_vae")[2]
    encode = jax.jit(Encoder().apply)
    first, second, permutation = jax.random.split(key, 3)

    def codes(x, key):
        mean, log_variance = encode({"params": params["encoder"]}, (x + 1) / 2)
        return mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape, mean.dtype)

    def belief(z):
        return nn.sigmoid(model.discriminator.apply({"params": params["discriminator"]}, z))

    z, other = codes(images[:BATCH], first), codes(images[BATCH:], second)
    other = objectives.permute_dimensions(permutation, other)
    expected = -(jnp.mean(jnp.log(belief(z))) + jnp.mean(jnp.log(1 - belief(other)))) / 2
    np.testing.assert_allclose(shown["loss/discriminator"], expected, rtol=1e-10)


def test_elbo_of_networks_that_ignore_their_input_has_a_closed_form():
    model = models.get("vae", z_dim=2)
    variables = jax.eval_shape(model.init, jax.random.key(0))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables)
    mean, log_variance, logit = np.array([0.5, -2.0]), np.array([0.3, -1.0]), 0.7
    variables["encoder"]["params"]["mean"]["bias"] = jnp.asarray(mean)
    variables["encoder"]["params"]["log_variance"]["bias"] = jnp.asarray(log_variance)
    variables["decoder"]["params"]["ConvTranspose_3"]["bias"] = jnp.asarray([logit])
    images = jnp.ones((3, 64, 64, 1)).at[:, :16].set(-1.0)  # a quarter of the pixels is off
    made = jax.jit(model.bounds)(variables, jax.random.key(0), images, model.hparams)
    on, p = 0.75, 1 / (1 + np.exp(-logit))
    likelihood = 4096 * (on * np.log(p) + (1 - on) * np.log(1 - p))
    kl = (mean**2 + np.exp(log_variance) - log_variance - 1) / 2
    np.testing.assert_allclose(made["kl"], kl, rtol=1e-12)
    np.testing.assert_allclose(made["reconstruction"], -likelihood, rtol=1e-10)
    np.testing.assert_allclose(made["elbo"], likelihood - kl.sum(), rtol=1e-10)
    np.testing.assert_allclose(made["upper_bound"], kl.sum(), rtol=1e-12)


@functools.cache
def evaluated(name):
    """(model, (codes, images generated of them, bounds))."""
    model, params, stats, images, key, hparams = setting(name)
    variables = {p: {"params": params[p], "batch_stats": stats[p]} for p in model.players}

    @jax.jit
    def compute(images):
        codes = model.represent(variables, images)
        return (
            codes,
            model.generate(variables, codes),
            model.bounds(variables, key, images, hparams),
        )

    return model, jax.device_get(compute(images[:BATCH]))


@pytest.mark.parametrize("name", [*GANS, *VAES])
def test_codes_and_images_have_the_shapes_that_metrics_and_figures_expect(name):
    model, (codes, made, bounds) = evaluated(name)
    chex.assert_shape(codes, (BATCH, model.code_dim))
    chex.assert_shape(made, (BATCH, 64, 64, 1))
    assert np.all(np.abs(made) <= 1)
    chex.assert_shape(bounds[model.share], (model.code_dim,))


def test_infogans_shares_add_up_to_its_bound():
    _, (_, _, made) = evaluated("infogan")
    key = setting("infogan")[4]
    z = jax.random.normal(jax.random.split(key)[0], (BATCH, 3))
    assert float(np.sum(made["information"])) == pytest.approx(float(made["lower_bound"]))
    assert float(made["lower_bound"]) < float(jnp.mean(jnp.sum(z**2, -1) / 2))


@pytest.mark.parametrize("name", VAES)
def test_vaes_use_adam_as_published(name):
    model, params, _, _, _, hparams = setting(name)
    params = jax.tree.map(lambda leaf: jnp.ones(2), params)  # Adam is elementwise
    for player, transform in model.optimizers(hparams).items():
        first, second = (0.5, 0.9) if player == "discriminator" else (0.9, 0.999)
        reference = optax.adam(1e-4, first, second, 1e-8)
        states = transform.init(params[player]), reference.init(params[player])
        for scale in (1.0, -0.5):
            gradient = jax.tree.map(lambda x, scale=scale: scale * x, params[player])
            ours, state = transform.update(gradient, states[0])
            theirs, other = reference.update(gradient, states[1])
            states = state, other
        chex.assert_trees_all_close(ours, theirs, rtol=1e-12)


def test_a_wrong_estimator_and_a_wrong_size_are_named():
    with pytest.raises(UserError, match=r"network.estimator='mws' is not one of: weighted, strat"):
        models.get("beta_tcvae", estimator="mws")
    with pytest.raises(UserError, match=r"network.z_dim=0 must be 1 or more"):
        models.get("vae", z_dim=0)
    with pytest.raises(UserError, match=r"discriminator_hidden=.*must be 1 or more"):
        models.get("factor_vae", discriminator_hidden=(10, 0))
