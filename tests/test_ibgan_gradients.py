"""IB-GAN's four gradients against Eq. 11 written out with lax convolutions, in float64."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import optimised
from double import double_precision
from equation_11 import PLAYERS, encoder, reference, scattered

from ibgan_jax.models.ibgan import DEFAULT_HPARAMS, IBGAN

BATCH = 4
SHUFFLED = {"arc": True, "pixel_shuffle": True}
TWO_VIEWS = {"shift": (2.0, 3.0), "zoom": 0.3, "noise_for_d": 0.6}
VARIANTS = {
    "own trunks": {},
    "shared front": {"shared_front": True, "encoder_batch_norm": True, "channels": 3},
    "arc and pixel shuffle": SHUFFLED,
    "two views": SHUFFLED | {"channels": 2, **TWO_VIEWS},
    "shared shuffled front": {"shared_front": True, "pixel_shuffle": True, "channels": 3},
}
RARE = ("arc and pixel shuffle", "shared shuffled front")  # made of parts that the others have
HPARAMS = {
    "plain": {"noise": 0.0},
    "noise": {"noise": 0.5, "beta": 0.7},
    "little information": {"noise": 0.5, "information": 0.3},
    "soft labels": {"noise": 0.5, "label_low": 0.7, "label_high": 1.2},
    "capacity": {"noise": 0.5, "capacity": 0.4},
    "cascade": {
        "noise": 0.5,
        "capacity": 0.4,
        "awake": (1.0, 0.0, 1.0),
        "cascade_noise": 0.3,
        "sideways": 2.5,
    },
    "guard fires": {"noise": 0.5, "beta": 0.0, "kl_guard_above": 1e-3},
    "guard rests": {"noise": 0.5, "beta": 0.0, "kl_guard_above": 1e3},
}


@pytest.fixture(scope="module", autouse=True)
def double():
    with double_precision():
        yield


@pytest.fixture(
    scope="module",
    params=[pytest.param(x, marks=[pytest.mark.slow] * (x in RARE)) for x in VARIANTS],
)
def setting(request):
    """(model, params, statistics, images, ours, reference), the last two compiled once."""
    sizes = {"z_dim": 4, "r_dim": 3, "generator_width": 2, "discriminator_width": 2}
    model = IBGAN(**sizes, encoder_hidden=(7, 6), **VARIANTS[request.param])
    variables = jax.eval_shape(model.init, jax.random.key(0))
    params = scattered({p: v["params"] for p, v in variables.items()}, 1)
    stats = scattered({p: v["batch_stats"] for p, v in variables.items()}, 2)
    images = np.random.default_rng(3).uniform(-1.0, 1.0, (BATCH, *model.image_shape))
    images = jnp.asarray(images)
    arguments = (params, stats, images, jax.random.key(7), hparams_of("plain"))
    ours = jax.jit(model.gradients)
    if request.param == "own trunks":
        ours = optimised(ours, *arguments)
    return model, params, stats, images, ours, jax.jit(partial(reference, model))


def hparams_of(name, **changes):
    scheduled = {"awake": (1.0,) * 3, "sideways": 1.0}
    numbers = {**DEFAULT_HPARAMS, **scheduled, **HPARAMS[name], **changes}
    return {k: jnp.asarray(v, jnp.float64) for k, v in numbers.items()}


def assert_close(actual, expected, tolerance=1e-9):
    """Leaf by leaf, relative to the leaf's largest magnitude.

    Biases in front of a BatchNorm have no gradient but rounding, so a leaf counts as no smaller
    than a thousandth of the tree's largest.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    floor = 1e-3 * max((np.max(np.abs(leaf)) for leaf in jax.tree.leaves(expected)), default=0.0)
    for (path, e), a in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(actual), strict=True
    ):
        error = np.max(np.abs(a - e)) / max(np.max(np.abs(e)), floor)
        assert error <= tolerance, f"{jax.tree_util.keystr(path)}: {error}"


@pytest.mark.parametrize("name", HPARAMS)
def test_gradients_statistics_and_metrics_equal_equation_11(setting, name):
    _, params, stats, images, ours, expected = setting
    arguments = (params, stats, images, jax.random.key(7), hparams_of(name))
    actual, expected = ours(*arguments), expected(*arguments)
    for player in PLAYERS:
        assert_close(actual[0][player], expected[0][player])
        assert_close(actual[1][player], expected[1][player])
    assert actual[2].keys() == expected[2].keys()
    for key, value in expected[2].items():
        np.testing.assert_allclose(actual[2][key], value, rtol=1e-9, err_msg=key)


def test_trees_have_the_structure_of_the_state(setting):
    _, params, stats, images, ours, _ = setting
    gradients, new_stats, metrics = ours(
        params, stats, images, jax.random.key(7), hparams_of("noise")
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new_stats, stats)
    chex.assert_shape(list(metrics.values()), ())
    total = sum(value for key, value in metrics.items() if key.startswith("kl/"))
    np.testing.assert_allclose(total, metrics["bounds/upper"], rtol=1e-12)
    assert all(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(gradients))


def test_kl_guard_can_be_switched_off(setting):
    _, params, stats, images, ours, _ = setting
    key = jax.random.key(7)
    off = ours(params, stats, images, key, hparams_of("guard fires", kl_guard=0.0))[0]
    rests = ours(params, stats, images, key, hparams_of("guard rests"))[0]
    fires = ours(params, stats, images, key, hparams_of("guard fires"))[0]
    chex.assert_trees_all_equal(off, rests)
    for player in PLAYERS[1:]:  # the KL is e's alone
        chex.assert_trees_all_equal(fires[player], rests[player])
    on, off = (g["encoder"]["Dense_2"]["bias"] for g in (fires, rests))
    assert not np.allclose(on, off)


def test_descent_lowers_each_players_loss(setting):
    """The reconstruction error falls when q descends: Algorithm 1 as printed would raise it."""
    _, params, stats, images, ours, expected = setting
    key, hparams = jax.random.key(7), hparams_of("noise")
    gradients = ours(params, stats, images, key, hparams)[0]

    def losses(player=None):
        """{player: its loss} and the reconstruction error, one step of `player` further."""
        at = dict(params)
        if player:
            at[player] = jax.tree.map(lambda p, g: p - 1e-5 * g, at[player], gradients[player])
        seen = expected(at, stats, images, key, hparams)[2]
        error = seen["loss/reconstructor"]
        shared = seen["loss/generator"] + error + hparams["beta"] * seen["bounds/upper"]
        return dict.fromkeys(PLAYERS, shared) | {"discriminator": seen["loss/discriminator"]}, error

    here, error = losses()
    for player in PLAYERS:
        after, error_after = losses(player)
        assert after[player] < here[player], player
        if player == "reconstructor":
            assert error_after < error


def test_discriminator_learns_to_tell_real_from_generated(setting):
    """Standard labels: its descent raises D(x) and lowers D(G); Algorithm 1 swaps them."""
    _, params, stats, images, ours, _ = setting
    key, hparams = jax.random.key(7), hparams_of("plain")
    gradient = ours(params, stats, images, key, hparams)[0]["discriminator"]
    w = jax.tree.map(lambda p, g: p - 1e-4 * g, params["discriminator"], gradient)
    before = ours(params, stats, images, key, hparams)[2]
    after = ours({**params, "discriminator": w}, stats, images, key, hparams)[2]
    gap = [m["probability/real"] - m["probability/generated"] for m in (before, after)]
    assert gap[1] > gap[0]


def test_generate_and_represent(setting):
    """Deterministic, and example by example: no batch statistics, no noise."""
    model, params, stats, images, _, _ = setting
    variables = {p: {"params": params[p], "batch_stats": stats[p]} for p in PLAYERS}
    codes = jnp.asarray(np.random.default_rng(4).normal(size=(BATCH, model.r_dim)))
    generate, represent = jax.jit(model.generate), jax.jit(model.represent)
    made, represented = generate(variables, codes), represent(variables, images)
    chex.assert_shape(made, (BATCH, 64, 64, model.channels))
    chex.assert_shape(represented, (BATCH, model.code_dim))
    assert np.all(np.abs(made) <= 1) and np.std(made) > 0
    np.testing.assert_array_equal(made, generate(variables, codes))
    np.testing.assert_array_equal(represented, represent(variables, images))
    np.testing.assert_allclose(generate(variables, codes[::-1])[::-1], made, rtol=1e-12)
    few = represent(variables, jnp.concatenate([images[:2], images[:4] * 0.0]))
    np.testing.assert_allclose(few[:2], represented[:2], rtol=1e-9)


def test_bounds(setting):
    model, params, stats, _, _, _ = setting
    variables = {p: {"params": params[p], "batch_stats": stats[p]} for p in PLAYERS}
    bounds = jax.jit(model.bounds)
    key, hparams = jax.random.key(5), hparams_of("noise")
    draws = jnp.zeros((16, *model.image_shape))  # only their number counts
    made = bounds(variables, key, draws, hparams)
    assert made.keys() == {"lower_bound", "upper_bound", "kl"}
    chex.assert_shape(made["kl"], (model.r_dim,))
    np.testing.assert_allclose(jnp.sum(made["kl"]), made["upper_bound"], rtol=1e-12)
    chex.assert_trees_all_equal(made, bounds(variables, key, draws, hparams))
    if model.encoder_batch_norm:
        return
    z = jax.random.normal(jax.random.split(key, 3)[0], (16, model.z_dim))
    (mean, log_variance), _ = encoder(params["encoder"], {}, z)
    kl = -log_variance / 2 + (jnp.exp(log_variance) + mean**2) / 2 - 0.5
    np.testing.assert_allclose(made["kl"], jnp.mean(kl, 0), rtol=1e-12)


@pytest.mark.parametrize(
    ("first", "after", "every", "last", "expected"),
    [
        (2, 0, 0, 0, [4, 4, 4, 4, 4]),
        (1, 100, 50, 0, [1, 1, 2, 3, 4]),
        (3, 150, 0, 0, [3, 3, 3, 4, 4]),
        (1, 100, 0, 200, [1, 1, 3, 3, 4]),
    ],
)
def test_dimensions_begin_one_after_another(first, after, every, last, expected):
    numbers = {"cascade_first": first, "cascade_from": after, "cascade_every": every}
    numbers["cascade_last"] = last
    hparams, model = hparams_of("plain", **numbers, cascade_sideways=2.0), IBGAN(r_dim=4)
    for step, count in zip((0, 99, 100, 150, 200), expected, strict=True):
        scheduled = model.schedule(hparams, jnp.asarray(step))
        np.testing.assert_array_equal(scheduled["awake"], np.arange(4) < count)
        assert scheduled["sideways"] == (2.0 if step < after else 1.0)


def test_noise_and_rates_go_on_in_the_late_phase():
    numbers = {"noise_start": 1.0, "noise_end": 0.4, "noise_steps": 6, "lr_encoder": 8e-3}
    late = {"late_noise": 0.2, "late_noise_steps": 4, "late_rates": 0.25, "late_rate_for_d": 0.25}
    late |= {"late_rates_from": 3, "late_rates_steps": 10}
    hparams = hparams_of("plain", **numbers, lr_discriminator=2e-4)
    expected = {2: (0.7, 8e-3, 2e-4), 7: (0.3, 4e-3, 5e-5), 50: (0.2, 2e-3, 1.25e-5)}
    for step, values in expected.items():
        scheduled = IBGAN().schedule(hparams | late, jnp.asarray(step))
        named = [scheduled[key] for key in ("noise", "lr_encoder", "lr_discriminator")]
        np.testing.assert_allclose(named, values, rtol=1e-6)
    without = IBGAN().schedule(hparams, jnp.asarray(50))
    assert (without["noise"], without["lr_encoder"]) == (0.4, 8e-3)


def test_the_capacity_grows_when_a_dimension_begins():
    numbers = {"cascade_first": 1, "cascade_from": 100, "cascade_every": 50}
    hparams = hparams_of("plain", **numbers, capacity=0.8, capacity_steps=20)
    for step, expected in ((0, [0, 0, 0]), (105, [0.8, 0.2, 0]), (500, [0.8] * 3)):
        capacity = IBGAN(r_dim=3).schedule(hparams, jnp.asarray(step))["capacity"]
        np.testing.assert_allclose(capacity, expected, rtol=1e-6)
