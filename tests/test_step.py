"""The train step: how often it is traced, and that dispatches, devices and members change nothing.

Comparisons are in float64. In float32 the biases in front of a BatchNorm, whose gradient is nothing
but rounding, are moved by RMSProp's normalisation, so that two programs differ there by a few
learning rates.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import double_precision

from ibgan_jax.distributed import batch_sharding, make_mesh, member, stack
from ibgan_jax.models.ibgan import DEFAULT_HPARAMS, IBGAN
from ibgan_jax.training.state import create
from ibgan_jax.training.step import make_train_steps

MODEL = IBGAN(z_dim=4, r_dim=3, generator_width=2, discriminator_width=2, encoder_hidden=(6, 5))
BATCH, STEPS = 4, 3
TOLERANCE = 1e-6  # differences between programs that round otherwise; wanted is 1e-5
HPARAMS = {"lr_discriminator": 1e-4, "noise_end": 0.2, "noise_steps": 4.0}


@pytest.fixture(scope="module", autouse=True)
def double():
    with double_precision():
        yield


def hparams_of(**changes):
    numbers = DEFAULT_HPARAMS | HPARAMS | changes
    return {name: jnp.asarray(value, jnp.float64) for name, value in numbers.items()}


initial = jax.jit(partial(create, MODEL))


def state_of(seed):
    """Before the first step, in float64."""

    def widen(x):
        return x.astype(jnp.float64) if x.dtype == jnp.float32 else x

    return jax.tree.map(widen, initial(seed, hparams_of()))


def batches():
    """Pixels as a data set keeps them, [K, B, 64, 64, 1]."""
    return np.random.default_rng(0).integers(0, 2, (STEPS, BATCH, 64, 64, 1), np.uint8)


class Program:
    """`make_train_steps`, with a count of its traces."""

    def __init__(self):
        self.traces = 0
        self.steps = make_train_steps(MODEL, self.decode)

    def decode(self, scale, batch):
        self.traces += 1
        return scale * batch.astype(jnp.float64) - 1.0

    def together(self, state, batch, hparams):
        """Of n members: every leaf has their axis first."""
        return self.steps(state, jnp.asarray(2.0), batch, hparams)

    def __call__(self, state, batch, hparams):
        """Of one member, which is a population of one."""
        one = jax.tree.map(lambda x: x[None], (state, batch, hparams))
        return jax.tree.map(lambda x: x[0], self.together(*one))


@pytest.fixture(scope="module")
def program():
    return Program()


@pytest.fixture(scope="module")
def dispatched(program):
    """(state, metrics) on the host after STEPS steps in one dispatch."""
    state, metrics = program(state_of(0), batches(), hparams_of())
    return numbers(state), jax.device_get(metrics)


def numbers(tree):
    """On the host, keys as their data."""

    def number(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.device_get(jax.tree.map(number, tree))


def largest_error(actual, expected, floor):
    """The largest error of any leaf, relative to the leaf's largest magnitude or the floor."""

    def error(a, e):
        assert a.shape == e.shape and a.dtype == e.dtype
        return np.max(np.abs(a - e)) / max(np.max(np.abs(e)), floor)

    return max(jax.tree.leaves(jax.tree.map(error, actual, expected)))


def assert_same_state(actual, expected):
    actual, expected = numbers(actual), numbers(expected)
    assert actual.step == expected.step
    np.testing.assert_array_equal(actual.key, expected.key)
    assert largest_error(actual.variables, expected.variables, 1e-3) <= TOLERANCE
    for player, (squares, momentum, _) in expected.optimizer.items():
        ours = actual.optimizer[player]
        assert largest_error(ours[0].nu, squares.nu, 1e-12) <= TOLERANCE
        assert largest_error(ours[1].trace, momentum.trace, 1.0) <= TOLERANCE


def test_changed_hyperparameters_compile_nothing(program, dispatched):
    """Nor does another seed or another step number; every number has its effect."""
    before, programs = program.traces, program.steps._cache_size()
    reference, _ = dispatched
    for name in ("beta", "lr_encoder", "lr_discriminator", "noise_start", "label_low"):
        hparams = hparams_of(**{name: 0.9 * float(hparams_of()[name])})
        state, _ = program(state_of(0), batches(), hparams)
        assert largest_error(numbers(state.params), reference.params, 1e-3) > 1e-9, name
    program(state, batches(), hparams)
    program(state_of(1), batches(), hparams_of())
    assert (program.traces, program.steps._cache_size()) == (before, programs)


def test_the_same_seed_gives_the_same_bits(program, dispatched):
    state, metrics = program(state_of(0), batches(), hparams_of())
    jax.tree.map(np.testing.assert_array_equal, (numbers(state), metrics), dispatched)


def test_another_seed_gives_another_run(program, dispatched):
    state, metrics = program(state_of(1), batches(), hparams_of())
    reference, reference_metrics = dispatched
    assert largest_error(numbers(state.params), reference.params, 1e-3) > 1e-2
    lower = "bounds/lower"
    assert np.all(np.asarray(metrics[lower]) != reference_metrics[lower])


def test_step_counter_key_and_donation(program):
    state, batch, hparams = jax.tree.map(lambda x: x[None], (state_of(0), batches(), hparams_of()))
    key = numbers(state.key)
    new, metrics = program.together(state, batch, hparams)
    assert int(new.step[0]) == STEPS and new.step.dtype == jnp.int32
    np.testing.assert_array_equal(numbers(new.key), key)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.variables))
    assert {value.shape for value in metrics.values()} == {(1, STEPS)}
    expected = 1.0 + (0.2 - 1.0) * np.arange(1, STEPS + 1) / 4
    np.testing.assert_allclose(metrics["noise"][0], expected, rtol=1e-12)


def test_steps_draw_different_numbers(program):
    """The same images at every step, and nothing learned: only the random numbers differ."""
    still = hparams_of(**{f"lr_{player}": 0.0 for player in MODEL.players}, noise_end=1.0)
    same = np.broadcast_to(batches()[:1], batches().shape)
    _, metrics = program(state_of(0), same, still)
    for name in ("bounds/upper", "probability/real", "probability/generated"):
        assert len(np.unique(metrics[name])) == STEPS


def test_one_dispatch_equals_single_steps(dispatched):
    """Step and key exactly, all else within TOLERANCE."""
    single, state, rows = Program(), state_of(0), []
    for i in range(STEPS):
        state, metrics = single(state, batches()[i : i + 1], hparams_of())
        rows.append(metrics)
    assert single.steps._cache_size() == 1
    reference, reference_metrics = dispatched
    assert_same_state(state, reference)
    for name, expected in reference_metrics.items():
        np.testing.assert_allclose([row[name][0] for row in rows], expected, rtol=TOLERANCE)


def test_four_devices_equal_one(dispatched):
    """The global batch's statistics and gradients, whatever the mesh."""
    mesh = make_mesh(1, 4)
    state, hparams = stack(mesh, state_of(0)), stack(mesh, hparams_of())
    batch = jax.device_put(batches()[None], batch_sharding(mesh))
    assert batch.sharding.shard_shape(batch.shape)[2] == BATCH // 4
    state, metrics = Program().together(state, batch, hparams)
    assert all(
        leaf.sharding.device_set == set(mesh.devices.flat) for leaf in jax.tree.leaves(state)
    )
    reference, reference_metrics = dispatched
    assert_same_state(member(mesh, state, 0), reference)
    for name, expected in reference_metrics.items():
        np.testing.assert_allclose(metrics[name][0], expected, rtol=TOLERANCE)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2)])
def test_population_equals_its_members(program, shape):
    """Two with their own seed, images, beta and learning rate, on one device and on four."""
    mesh = make_mesh(*shape)
    members = [(0, hparams_of()), (1, hparams_of(beta=0.0, lr_generator=1e-3, kl_guard_above=0.0))]
    images = np.stack([batches(), batches()[::-1]])
    states = stack(mesh, *(state_of(seed) for seed, _ in members))
    hparams = stack(mesh, *(own for _, own in members))
    batch = jax.device_put(images, batch_sharding(mesh))
    states, metrics = Program().together(states, batch, hparams)
    for i, (seed, own) in enumerate(members):
        expected, expected_metrics = program(state_of(seed), images[i], own)
        assert_same_state(member(mesh, states, i), expected)
        for name, values in expected_metrics.items():
            np.testing.assert_allclose(metrics[name][i], values, rtol=TOLERANCE)


def test_the_first_state_is_a_function_of_the_seed():
    first, other = initial(3, hparams_of()), initial(4, hparams_of())
    again = initial(3, hparams_of(beta=2.0, lr_encoder=1.0))
    jax.tree.map(np.testing.assert_array_equal, numbers(first), numbers(again))
    assert int(first.step) == 0
    assert np.any(numbers(first.key) != numbers(other.key))
    names = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(first.params)]
    pairs = zip(names, *(jax.tree.leaves(s.params) for s in (first, other)), strict=True)
    assert all(np.all(a != b) for name, a, b in pairs if name == "kernel")
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(first.optimizer))
