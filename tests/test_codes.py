"""Scores of all members at once, as accelerators take them, against one member after another."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from double import double_precision

from ibgan_jax import distributed, metrics
from ibgan_jax.errors import UserError
from ibgan_jax.training import codes, evaluation
from ibgan_jax.training.run import build

KEY = evaluation.TRAINING_KEY

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture(params=[1, 4], ids=lambda count: f"{count}_devices")
def devices(request, monkeypatch):
    monkeypatch.setattr(distributed, "devices", lambda: jax.devices()[: request.param])


@pytest.fixture
def accelerated(monkeypatch):
    """The accelerator's way on this CPU, with batches so small that there are several."""
    monkeypatch.setattr(codes, "many_at_once", lambda mesh: True)
    monkeypatch.setattr(codes, "AT_ONCE", 120)
    monkeypatch.setattr(codes, "LARGEST", 60)


@dataclasses.dataclass(frozen=True)
class OneLayer:
    """As little of a model as has codes; a tenth of the time to compile."""

    dims: int = 6

    def init(self, seed, shape):
        rng = np.random.default_rng(seed)
        kernel = rng.normal(0, 3 / np.sqrt(np.prod(shape)), (np.prod(shape), self.dims))
        read = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(self.dims)}
        return {"encoder": read, "generator": {"kernel": jnp.ones((7, 7))}}

    def represent(self, variables, images):
        kernel, bias = variables["encoder"]["kernel"], variables["encoder"]["bias"]
        return 3 * jnp.tanh(images.reshape(len(images), -1) @ kernel + bias)


def population(count, **changed):
    """Runs of OneLayer that differ in their seeds, and their variables."""
    first = build(tiny.config(**changed), lambda line: None, count)
    sharding = distributed.replicated(first.mesh)
    model, shape = OneLayer(), first.dataset.image_shape
    runs = [
        dataclasses.replace(first.of(tiny.config(seed=seed, **changed)), model=model)
        for seed in range(count)
    ]
    return runs, [jax.device_put(model.init(seed, shape), sharding) for seed in range(count)]


def codes_apart(runs, variables, factors):
    """Member after member in batches of 50: [P, N, d]."""
    dataset = runs[0].dataset
    return np.stack(
        [
            metrics.Encoder(lambda x, r=run, v=own: r.represent(v, x), dataset)(factors)
            for run, own in zip(runs, variables, strict=True)
        ]
    )


def remembered(monkeypatch):
    """A list that fills with (factors, codes) of each member that is told its codes."""
    calls, remember = [], metrics.Encoder.remember

    def wrapped(self, factors, given):
        calls.append((factors, given))
        remember(self, factors, given)

    monkeypatch.setattr(metrics.Encoder, "remember", wrapped)
    return calls


@pytest.mark.parametrize("count", [1, 3])
def test_all_members_together_are_one_after_another(devices, accelerated, monkeypatch, count):
    runs, variables = population(count)
    calls = remembered(monkeypatch)
    evaluation.score_members(runs, variables, 12, print)
    factors = calls[0][0]
    assert len(calls) == count
    assert len(factors) > 120  # several batches
    assert len(np.unique(factors, axis=0)) == len(factors)
    together = np.stack([given for _, given in calls])
    apart = codes_apart(runs, variables, factors)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5 * np.abs(apart).max())


def test_of_ib_gan_they_are_the_same_but_for_rounding(accelerated, monkeypatch):
    """All of its networks, in double precision."""
    with double_precision():
        first = build(tiny.config(), lambda line: None, 2)
        runs = [first.of(tiny.config(seed=seed)) for seed in range(2)]
        variables = jax.tree.map(
            lambda x: x.astype(jnp.float64), [run.create_state().variables for run in runs]
        )
        calls = remembered(monkeypatch)
        evaluation.score_members(runs, variables, 12, print)
        together = np.stack([given for _, given in calls])
        apart = codes_apart(runs, variables, calls[0][0])
    assert together.dtype == np.float64
    assert np.ptp(together, axis=1).min() > 0
    np.testing.assert_allclose(together, apart, rtol=1e-12, atol=1e-12 * np.abs(apart).max())


@pytest.mark.parametrize("name", ["dsprites", "color_dsprites"])
def test_what_is_asked_is_known_and_the_score_that_of_its_codes(accelerated, monkeypatch, name):
    """Nothing is encoded besides, and codes that are equal give scores that are equal."""
    runs, variables = population(3, dataset_name=name)
    calls = remembered(monkeypatch)

    def never(self, factors):
        raise AssertionError(f"{len(factors)} combinations were not known")

    asked = _asked_of(runs[0].dataset)
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "combinations_of", lambda *given: asked)
        patch.setattr(metrics.Encoder, "_encode", never)
        together = evaluation.score_members(runs, variables, 12, print)
    for (factors, given), (record, best) in zip(list(calls), together, strict=True):
        encode = metrics.Encoder(never, runs[0].dataset)
        encode.remember(factors, given)
        alone = metrics.factor_vae_score(encode, runs[0].dataset, jax.random.key(KEY))
        assert best == record[evaluation.SCORE] == alone.value
        assert record["score/active_dimensions"] == len(alone.active)
    assert len({best for _, best in together}) > 1  # the members differ


def _asked_of(dataset):
    return metrics.combinations_of(metrics.factor_vae_score, dataset, jax.random.key(KEY))


def test_scores_are_those_of_one_member_after_another(devices, monkeypatch):
    runs, variables = population(3)
    apart = evaluation.score_members(runs, variables, 12, print)
    alone = [evaluation.score(r, v, 12, print) for r, v in zip(runs, variables, strict=True)]
    assert apart == alone
    monkeypatch.setattr(codes, "many_at_once", lambda mesh: True)
    # Codes differ in rounding alone, which changes no vote here.
    assert evaluation.score_members(runs, variables, 12, print) == apart


def test_the_combinations_are_those_that_the_metric_encodes():
    runs, variables = population(1)
    encode = evaluation.encoder(runs[0], variables[0])
    metrics.factor_vae_score(encode, runs[0].dataset, jax.random.key(KEY))
    np.testing.assert_array_equal(_asked_of(runs[0].dataset), encode.known)


def test_two_evaluations_compile_once_and_keep_the_batches(accelerated, monkeypatch):
    runs, variables = population(2)
    lookups, traces = [], []
    dataset, model = runs[0].dataset, type(runs[0].model)
    lookup, represent = dataset.lookup_factors, model.represent
    monkeypatch.setattr(
        dataset, "lookup_factors", lambda factors: lookups.append(1) or lookup(factors)
    )
    monkeypatch.setattr(model, "represent", lambda *given: traces.append(1) or represent(*given))
    first = evaluation.score_members(runs, variables, 12, print)
    after = len(traces)
    assert len(lookups) == 1
    assert after > 0
    other = evaluation.score_members(runs, variables[::-1], 24, print)
    assert (len(lookups), len(traces)) == (1, after)
    assert other == first[::-1]


def test_another_data_set_or_protocol_asks_anew(accelerated, monkeypatch):
    """Nothing of one run reaches the next."""
    scores = []
    for name, votes in (("dsprites", 40), ("color_dsprites", 40), ("color_dsprites", 60)):
        numbers = metrics.factor_vae.VoteProtocol(votes, 10, 200, 0.0)
        monkeypatch.setattr(metrics.factor_vae_score, "protocols", {"id_gan": numbers})
        runs, variables = population(1, dataset_name=name)
        calls = remembered(monkeypatch)
        scores.append(evaluation.score_members(runs, variables, 12, print))
        np.testing.assert_array_equal(calls[-1][0], _asked_of(runs[0].dataset))
    assert scores[0] != scores[1]


def test_only_what_the_representation_reads_is_passed(accelerated):
    runs, variables = population(2)
    run = runs[0]
    program = codes.program(run.model, run.dataset, distributed.mesh_for(2))
    batches = run.dataset.lookup_factors(np.zeros((1, 4, 5), int))
    text = program.lower(tuple(variables), run.dataset.arrays, batches).as_text()
    signature = text[text.index("@main(") : text.index("->")]
    # Kernel and bias of each member, the records, and the index of each image.
    assert signature.count("%arg") == 2 * 2 + 1 + 1


def test_codes_that_are_not_finite_are_refused(accelerated):
    runs, variables = population(2)
    variables[1] = jax.tree.map(lambda x: x * jnp.nan, variables[1])
    with pytest.raises(UserError, match="finite"):
        evaluation.score_members(runs, variables, 12, print)


@pytest.mark.parametrize(
    ("shape", "members", "images"),
    [
        ((1, 1), 1, 2000),
        ((1, 1), 10, 500),
        ((1, 4), 3, 6664),
        ((2, 2), 10, 2000),
        ((1, 1), 9999, 1),
    ],
)
def test_batches_split_over_the_mesh_and_bound_the_memory(shape, members, images):
    if np.prod(shape) > len(jax.devices()):
        pytest.skip("needs four devices")
    assert codes.batch_size(distributed.make_mesh(*shape), members) == images


def test_streamed_records_give_the_same_codes(accelerated, monkeypatch, tmp_path):
    pytest.importorskip("grain")
    pytest.importorskip("tensorflow_datasets")
    calls = remembered(monkeypatch)
    scores = []
    for changed in ({}, {"dataset_source": "stream", "dataset_dir": str(tmp_path)}):
        runs, variables = population(2, **changed)
        scores.append(evaluation.score_members(runs, variables, 12, print))
    assert runs[0].dataset.arrays == {}
    for (factors, one), (same, other) in zip(calls[:2], calls[2:], strict=True):
        np.testing.assert_array_equal(factors, same)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert json.dumps(scores[0]) == json.dumps(scores[1])


def test_the_final_scores_share_large_batches(accelerated, monkeypatch):
    """Codes of final scores come a thousand at a time; those of scores in training as before."""
    runs, variables = population(1)
    sizes = []
    dataset = runs[0].dataset
    images = dataset.images
    monkeypatch.setattr(dataset, "images", lambda f: sizes.append(len(f)) or images(f))
    encode = evaluation.encoder(runs[0], variables[0])
    encode(dataset.factors_of(np.arange(180)))
    assert set(sizes) == {codes.LARGEST * runs[0].mesh.size}
