"""What all metrics have in common: the driver that encodes, the record, what they refuse."""

import dataclasses
import json
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_codes import FactorsAsImages, encoder, ideal, of_factors

from ibgan_jax import metrics
from ibgan_jax.errors import UserError

SIZES = (3, 4, 5)
KEY = jax.random.key(7)
SMALL = {
    "factor_vae": {"votes": 40, "samples": 20, "normaliser_samples": 200},
    "mig": {"images": 300},
    "dci": {"train": 300, "test": 100},
    "sap": {"train": 300, "test": 100},
    "modularity": {"images": 300},
    "beta_vae": {"train": 60, "test": 30, "pairs": 3},
}


@pytest.fixture
def small(monkeypatch):
    """Small numbers in every metric's default protocol, and no boosted trees."""
    for name, numbers in SMALL.items():
        protocols = metrics.PROTOCOLS[name]
        default = next(iter(protocols))
        if name == "dci":
            numbers = numbers | {"classifier": "l1_logistic"}
        monkeypatch.setitem(protocols, default, dataclasses.replace(protocols[default], **numbers))


def mixed(factors):
    return ideal(factors) @ jnp.array([[1.0, 0.2, 0.1], [0.1, 1.0, 0.3], [0.2, 0.1, 1.0]])


def test_codes_stand_where_their_factors_do():
    encode = encoder(lambda f: 4 * f, FactorsAsImages(SIZES))
    factors = np.random.default_rng(0).integers(0, SIZES, (7, 11, 3))
    expected = 4 * factors / (np.array(SIZES) - 1)
    np.testing.assert_allclose(encode(factors), expected, rtol=1e-6)
    more = np.random.default_rng(1).integers(0, SIZES, (500, 3))
    np.testing.assert_allclose(encode(more), 4 * more / (np.array(SIZES) - 1), rtol=1e-6)
    np.testing.assert_allclose(encode(factors), expected, rtol=1e-6)


def test_every_combination_is_encoded_once_in_batches_of_one_shape():
    dataset = FactorsAsImages((30, 20))
    encode = metrics.Encoder(of_factors(ideal), dataset, batch_size=64)
    rng = np.random.default_rng(0)
    for _ in range(4):
        encode(rng.integers(0, (30, 20), (900, 2)))
    assert {batch.shape for batch in dataset.batches} == {(64, 2)}
    # Each call fills up one batch at most; 3,600 images would be 60 batches.
    assert len(dataset.batches) <= 600 // 64 + 4
    assert len(np.unique(np.concatenate(dataset.batches), axis=0)) > 590


def test_what_is_remembered_is_not_encoded():
    dataset = FactorsAsImages((30, 20))
    encode = metrics.Encoder(of_factors(ideal), dataset, batch_size=10)
    every = np.argwhere(np.ones((30, 20)))
    encode(every[100:110])
    encode.remember(every[200:][::-1], -np.arange(400.0)[::-1, None] * [1, 1])
    codes = encode(every)
    np.testing.assert_array_equal(codes[200:, 0], -np.arange(400.0))
    scaled = every / np.array([29, 19])
    np.testing.assert_allclose(codes[:200], 4 * scaled[:200], rtol=1e-6)
    assert len(dataset.batches) == 20
    encoded = np.concatenate(dataset.batches) @ [20, 1]
    assert sorted(encoded) == list(range(200))
    np.testing.assert_array_equal(encode.known, every)
    with pytest.raises(UserError, match="finite"):
        metrics.Encoder(of_factors(ideal), dataset).remember(every[:1], np.array([[np.nan]]))


@pytest.mark.parametrize("name", metrics.METRICS)
def test_the_combinations_of_a_metric_are_those_that_it_encodes(small, name):
    if name in ("sap", "beta_vae"):
        pytest.importorskip("sklearn")
    dataset, sizes = FactorsAsImages((9, 4, 5)), np.array([20, 5, 1])
    asked = metrics.combinations_of(metrics.METRICS[name], dataset, KEY)
    assert dataset.batches == []
    metrics.METRICS[name](of_factors(mixed), dataset, KEY)
    encoded = np.unique(np.concatenate(dataset.batches) @ sizes)
    np.testing.assert_array_equal(asked @ sizes, encoded)


def test_reducing_in_parts_is_reducing_at_once(monkeypatch):
    monkeypatch.setattr("ibgan_jax.metrics.encoding.IMAGES_AT_ONCE", 100)
    factors = np.random.default_rng(0).integers(0, SIZES, (33, 20, 3))
    encode = encoder(mixed, FactorsAsImages(SIZES))
    reduced = encode.reduced(factors, lambda codes: codes.var(axis=1))
    np.testing.assert_allclose(reduced, encode(factors).var(axis=1), rtol=1e-12)


def test_all_is_dispatched_before_anything_is_fetched():
    events = []

    class Codes:
        """Codes on a device: asking for the numbers is an event."""

        shape = (50, 1)

        def __array__(self, dtype=None, copy=None):
            events.append("fetch")
            return np.ones(self.shape, dtype)

    def codes_of(images):
        events.append("dispatch")
        return Codes()

    metrics.Encoder(codes_of, FactorsAsImages((40, 50)))(np.argwhere(np.ones((40, 50))))
    assert events == ["dispatch"] * 40 + ["fetch"] * 40


def test_threads_change_no_code():
    one, two = (
        metrics.Encoder(of_factors(mixed), FactorsAsImages((40, 50, 3)), threads=n) for n in (1, 2)
    )
    factors = np.argwhere(np.ones((40, 50, 3)))  # 120 batches
    np.testing.assert_array_equal(two(factors), one(factors))
    batches = [{batch.tobytes() for batch in encode.dataset.batches} for encode in (one, two)]
    assert len(batches[0]) == 120
    assert batches[1] == batches[0]


def test_two_threads_encode_at_the_same_time():
    both = threading.Barrier(2, timeout=30)

    def codes_of(images):
        both.wait()  # breaks unless another batch is being encoded
        return images.reshape(len(images), -1)

    encode = metrics.Encoder(codes_of, FactorsAsImages((40, 50)), threads=2)
    assert encode(np.argwhere(np.ones((40, 50)))).shape == (2000, 2)


def test_what_a_thread_raises_is_raised():
    def codes_of(images):
        raise UserError("no codes today")

    with pytest.raises(UserError, match="no codes today"):
        metrics.Encoder(codes_of, FactorsAsImages((40, 50)), threads=2)(np.zeros((9, 2), int))


@pytest.mark.parametrize("name", metrics.METRICS)
def test_records_are_complete_and_decided_by_the_key(small, name):
    if name in ("sap", "beta_vae"):
        pytest.importorskip("sklearn")
    call = metrics.METRICS[name]
    score = call(of_factors(mixed), FactorsAsImages(SIZES), KEY)
    record = json.loads(json.dumps(score.as_dict()))
    assert record["metric"] == name
    assert record["protocol"] == next(iter(metrics.PROTOCOLS[name]))
    assert record["settings"].items() >= SMALL[name].items()
    assert record["dataset"] == "factors"
    assert record["factor_names"] == ["shape", "scale", "orientation"]
    assert record["key"] == np.asarray(jax.random.key_data(KEY)).tolist()
    assert record["value"] == float(score)
    assert 0 <= record["interval"][0] <= record["value"] <= record["interval"][1] <= 1
    again = call(of_factors(mixed), FactorsAsImages(SIZES), KEY)
    assert again.as_dict() == score.as_dict()
    other = call(of_factors(mixed), FactorsAsImages(SIZES), jax.random.key(8))
    assert other.as_dict() != score.as_dict() | {"key": other.key}


def test_metrics_together_are_as_alone_and_share_their_codes(small):
    pytest.importorskip("sklearn")
    dataset = FactorsAsImages(SIZES)
    names = ["mig", "dci", "sap", "modularity", "factor_vae", "beta_vae", "factor_vae:infogan_cr"]
    scores = metrics.evaluate_all(of_factors(mixed), dataset, KEY, names)
    assert list(scores) == names
    # Nearly all of the 60 combinations (two batches) are in the first metric's 300 images.
    assert len(dataset.batches) <= 3
    assert scores["factor_vae:infogan_cr"].protocol == "infogan_cr"
    for name in names[:-1]:
        alone = metrics.METRICS[name](of_factors(mixed), FactorsAsImages(SIZES), KEY)
        assert alone.as_dict() == scores[name].as_dict()


def test_matrices_have_a_row_a_dimension_and_a_column_a_factor(small):
    pytest.importorskip("sklearn")
    four = of_factors(lambda f: jnp.concatenate([ideal(f), f[:, :1] + f[:, 1:2]], -1))
    scores = metrics.evaluate_all(four, FactorsAsImages(SIZES), KEY, list(SMALL)[:-1])
    for name, matrix in {
        "factor_vae": "votes",
        "mig": "mutual_information",
        "modularity": "mutual_information",
        "dci": "importance",
        "sap": "accuracies",
    }.items():
        found = scores[name].details[matrix]
        assert found.shape == (4, 3)
        assert found.argmax(axis=0).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", metrics.METRICS)
def test_what_is_refused(small, name):
    if name in ("sap", "beta_vae"):
        pytest.importorskip("sklearn")
    call = metrics.METRICS[name]
    dataset = FactorsAsImages(SIZES)
    with pytest.raises(
        UserError, match=f"unknown protocol 'mine'.*{next(iter(metrics.PROTOCOLS[name]))}"
    ):
        call(of_factors(ideal), dataset, KEY, protocol="mine")
    with pytest.raises(UserError, match="finite"):
        call(of_factors(lambda f: f * jnp.nan), dataset, KEY)
    for wrong in (lambda x: x, lambda x: x[:, 0, 0, 0], lambda x: x[:3, 0, 0]):
        with pytest.raises(UserError, match=r"\[50, d\]"):
            call(wrong, dataset, KEY)
    plain = FactorsAsImages(())
    with pytest.raises(UserError, match="no ground-truth factors"):
        call(of_factors(ideal), plain, KEY)
    with pytest.raises(UserError, match="more than one value"):
        call(of_factors(ideal), FactorsAsImages((1, 1)), KEY)
    with pytest.raises(UserError, match="this encoder is of"):
        call(encoder(ideal, FactorsAsImages(SIZES)), dataset, KEY)


def test_unknown_metrics_are_named_before_anything_is_encoded():
    dataset = FactorsAsImages(SIZES)
    with pytest.raises(UserError, match=r"unknown metric 'fid'.*factor_vae, mig"):
        metrics.evaluate_all(of_factors(ideal), dataset, KEY, ["mig", "fid"])
    assert dataset.batches == []


@pytest.mark.parametrize(
    ("name", "module"), [("sap", "svm"), ("dci", "ensemble"), ("beta_vae", "linear_model")]
)
def test_without_scikit_learn_its_installation_is_told(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, f"sklearn.{module}", None)
    with pytest.raises(UserError, match="pip install 'scikit-learn"):
        metrics.METRICS[name](of_factors(ideal), FactorsAsImages(SIZES), KEY)
