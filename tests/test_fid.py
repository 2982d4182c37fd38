"""The Frechet distance against closed forms and SciPy, and FID on features that are known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from factor_codes import FactorsAsImages

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.fid import _compare, fid, frechet_distance
from ibgan_jax.metrics.moments import statistics_of

RECORD = {
    "protocol": "factor_net",
    "sha256": "0" * 64,
    "dataset": "factors",
    "accuracy": {"x": 0.9},
    "seed": 3,
}
KEY = jax.random.key(4)


def spd(rng, width, rank=None):
    """A random covariance [width, width] of this rank, with eigenvalues over some decades."""
    x = rng.normal(size=(width, rank or width)) * np.logspace(-1, 1, rank or width)
    return x @ x.T


def test_the_same_gaussian_is_at_no_distance():
    rng = np.random.default_rng(0)
    for rank in (None, 5):
        mean, cov = rng.normal(size=40), spd(rng, 40, rank)
        assert 0 <= frechet_distance(mean, cov, mean, cov) < 1e-10 * np.trace(cov)


def test_shifted_means():
    cov = spd(np.random.default_rng(0), 3)
    shifted = frechet_distance([1.0, 2.0, 3.0], cov, [1.0, -1.0, 7.0], cov)
    np.testing.assert_allclose(shifted, 25.0, atol=1e-9)


def test_one_dimension():
    """(m1 - m2)^2 + (s1 - s2)^2."""
    np.testing.assert_allclose(frechet_distance([1.0], [[9.0]], [3.0], [[25.0]]), 4 + 4)
    np.testing.assert_allclose(frechet_distance([0.0], [[0.0]], [0.0], [[25.0]]), 25)


def test_commuting_covariances():
    """With common eigenvectors: the sum of (s1 - s2)^2 over them."""
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    one, other = np.arange(8.0), np.array([3, 1, 4, 1, 5, 9, 2, 6.0])
    covs = [(axes * s**2) @ axes.T for s in (one, other)]
    distance = frechet_distance(np.zeros(8), covs[0], np.zeros(8), covs[1])
    np.testing.assert_allclose(distance, np.sum((one - other) ** 2), rtol=1e-9)


def test_disjoint_supports_add_up():
    """Covariances of rank one at right angles have no common root: the traces stay."""
    one, other = np.diag([4.0, 0.0]), np.diag([0.0, 9.0])
    np.testing.assert_allclose(frechet_distance([0, 0], one, [0, 0], other), 13.0)


@pytest.mark.parametrize("width", [2, 7, 64])
def test_against_scipys_matrix_square_root(width):
    rng = np.random.default_rng(width)
    one, other = spd(rng, width), spd(rng, width)
    means = rng.normal(size=(2, width))
    root = scipy.linalg.sqrtm(one @ other).real
    known = np.sum((means[0] - means[1]) ** 2) + np.trace(one + other - 2 * root)
    distance = frechet_distance(means[0], one, means[1], other)
    np.testing.assert_allclose(distance, known, rtol=1e-7)
    np.testing.assert_allclose(frechet_distance(means[1], other, means[0], one), distance)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\[d, d\]"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))


@pytest.mark.parametrize("rows_at_once", [1, 101, 1000])
def test_streaming_statistics_are_numpys(rows_at_once):
    """Far from 0 and in batches of unequal sizes, where sums of squares would lose all digits."""
    rng = np.random.default_rng(0)
    features = (1e4 + rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)
    batches = iter(np.split(features, [1, 100, 103, 390]))
    found = statistics_of(jnp.asarray, batches, rows_at_once)
    exact = features.astype(np.float64)
    assert found.count == 500
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(exact.T), rtol=1e-9)


def test_features_that_cannot_be_used():
    with pytest.raises(UserError, match="no images"):
        statistics_of(jnp.asarray, [])
    for wrong in (np.array([[1.0, np.nan]]), np.zeros((2, 3, 4)), np.zeros(3)):
        with pytest.raises(UserError, match=r"finite \[B, d\]"):
            statistics_of(jnp.asarray, [wrong])


class NormalImages(FactorsAsImages):
    """Images [B, 1, 1, 2] that are normal numbers of their factors."""

    @property
    def size(self):
        return int(np.prod(self.factor_sizes))

    def examples(self, indices):
        return self.images(np.stack(np.unravel_index(indices, self.factor_sizes), axis=-1))

    def images(self, factors):
        self.batches.append(np.array(factors))
        keys = jax.vmap(jax.random.key)(factors @ np.array([10_000, 100, 1]))
        return jax.vmap(lambda key: jax.random.normal(key, (1, 1, 2)))(keys)


def flat(images):
    return images.reshape(len(images), -1)


def shifted(mean, deviation):
    return lambda key, count: mean + deviation * jax.random.normal(key, (count, 1, 1, 2))


def of(generate, count=4000, key=KEY, dataset=None, **options):
    dataset = dataset or NormalImages((50, 50, 50))
    return fid(flat, dataset, generate, key, count, record=RECORD, **options)


def test_a_known_distance_is_inside_the_interval():
    """Two features, means 0 and 1, deviations 1 and 3: 2 (1 + 4)."""
    score = of(shifted(1.0, 3.0))
    low, high = score.interval
    assert low < 10.0 < high < low + 2.5
    np.testing.assert_allclose(score.value, 10.0, rtol=0.06)
    parts = score.details
    np.testing.assert_allclose(parts["mean_part"], 2.0, rtol=0.1)
    np.testing.assert_allclose(parts["mean_part"] + parts["covariance_part"], score.value)


def test_the_interval_is_as_wide_as_values_scatter():
    scores = [of(shifted(1.0, 3.0), 1000, jax.random.key(i), batch_size=50) for i in range(25)]
    widths = [score.interval[1] - score.interval[0] for score in scores]
    scatter = np.std([score.value for score in scores], ddof=1)
    assert 0.6 < np.mean(widths) / (2 * 1.96 * scatter) < 1.6


def test_the_interval_is_the_jackknifes():
    """By all 20 distances themselves, of features that are far from normal."""
    rng = np.random.default_rng(0)
    real, other = rng.exponential(size=(2, 4000, 5)) @ rng.normal(size=(5, 5)) * [[[1]], [[1.3]]]
    blocks = np.split(other, 20)
    value, interval, _ = _compare(
        statistics_of(np.asarray, [real]), [statistics_of(np.asarray, [x]) for x in blocks]
    )

    def distance(x):
        return frechet_distance(real.mean(0), np.cov(real.T), x.mean(0), np.cov(x.T))

    without = [distance(np.concatenate(blocks[:b] + blocks[b + 1 :])) for b in range(20)]
    error = 1.96 * np.sqrt(19 * np.var(without))
    np.testing.assert_allclose(value, distance(other), rtol=1e-9)
    np.testing.assert_allclose(interval, (value - error, value + error), rtol=0.01)
    assert 0.01 < error / value < 0.5


def test_dead_features_leave_the_interval_finite():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(2, 100, 8)) * [1, 2, 0, 0, 3, 0, 0, 0]
    other[:, 3] = rng.normal(size=100)
    blocks = [statistics_of(np.asarray, [x]) for x in np.split(other, 20)]
    value, (low, high), _ = _compare(statistics_of(np.asarray, [real]), blocks)
    assert 0 <= low < value < high < 10


def test_progress_is_said(monkeypatch):
    monkeypatch.setitem(fid.__globals__, "SECONDS_BETWEEN_LINES", 0)
    lines = []
    of(shifted(0.0, 1.0), 100, log=lines.append)
    real, generated = lines[:2], lines[2:]
    assert real[-1].startswith("fid: 100 of 100 real images, about 0 min left")
    assert generated[-1].startswith("fid: 100 of 100 generated images")


def test_the_data_itself_is_almost_at_no_distance():
    score = of(shifted(0.0, 1.0))
    assert 0 <= score.interval[0] <= score.value <= score.interval[1] < 0.01


def test_every_image_is_drawn_once_and_the_key_decides():
    dataset = NormalImages((4, 5, 9))
    score = of(shifted(0.0, 1.0), 180, dataset=dataset, batch_size=7)
    drawn = np.concatenate(dataset.batches)
    assert len(drawn) == len(np.unique(drawn, axis=0)) == 180
    assert of(shifted(0.0, 1.0), 180, dataset=dataset, batch_size=7) == score
    assert of(shifted(0.0, 1.0), 180, jax.random.key(5), dataset).value != score.value


def test_generated_batches_are_all_different():
    seen = []

    def generate(key, count):
        seen.append(np.asarray(jax.random.normal(key, (count, 1, 1, 2))))
        return seen[-1]

    of(generate, 100, batch_size=3)
    images = np.concatenate(seen)
    assert len(images) == len(np.unique(images, axis=0)) == 100


def test_the_record_of_a_score():
    score = json.loads(json.dumps(of(shifted(0.0, 1.0), 100).as_dict()))
    assert (score["metric"], score["protocol"], score["dataset"]) == (
        "fid",
        "factor_net",
        "factors",
    )
    classifier = {name: RECORD[name] for name in ("sha256", "dataset", "accuracy")}
    settings = {"images": 100, "real_images": 100, "features": 2, "classifier": classifier}
    assert score["settings"] == settings
    assert score["key"] == jax.random.key_data(KEY).tolist()


def test_all_real_images_are_taken_where_there_are_fewer():
    dataset = NormalImages((3, 4, 5))
    score = of(shifted(0.0, 1.0), 61, dataset=dataset)
    assert (score.settings["images"], score.settings["real_images"]) == (61, 60)
    assert len(np.unique(np.concatenate(dataset.batches), axis=0)) == 60


@pytest.mark.parametrize(("count", "sizes"), [(39, (3, 4, 5)), (100, (3, 13))])
def test_too_few_images(count, sizes):
    with pytest.raises(UserError, match=f"{count} images against {np.prod(sizes)}.* 40 of each"):
        of(shifted(0.0, 1.0), count, dataset=NormalImages(sizes))
