"""ModelCentrality of linear members, whose dimensions are known mixtures of one another's."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import model_centrality
from ibgan_jax.metrics.model_centrality import PROTOCOLS

D = 4
KEY = jax.random.key(3)
ROTATION = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
PLAIN = np.eye(D)
TURNED = PLAIN[[2, 0, 3, 1]] * np.array([-1, 3, -0.2, 1])


@jax.jit
def product(x, weights):
    return x.reshape(len(x), -1) @ weights


def member(weights, reader=None):
    """Images [B, 1, 1, D] are codes times `weights`; codes are images times their inverse."""
    reader = np.linalg.inv(weights) if reader is None else reader
    weights, reader = jnp.asarray(weights, jnp.float32), jnp.asarray(reader, jnp.float32)
    return lambda z: product(z, weights)[:, None, None, :], lambda x: product(x, reader)


def score(members, nats=None, key=KEY, protocol="short"):
    generators, encoders = zip(*members, strict=True)
    nats = np.ones((len(members), D)) if nats is None else nats
    return model_centrality(generators, encoders, nats, key, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_members_alike_but_for_order_sign_and_scale_have_one(protocol):
    result = score([member(PLAIN), member(TURNED)], protocol=protocol)
    assert result.values.tolist() == [1.0, 1.0]
    assert (result.pairs == 1).all()


def test_a_rotated_member_is_the_lowest_and_reads_only_itself():
    result = score([member(PLAIN), member(TURNED), member(ROTATION), member(PLAIN)])
    assert result.values[2] < 0.65 < 0.8 < np.delete(result.values, 2).min()
    accuracies = result.details["accuracies"]
    assert accuracies[2, 2] == 1.0
    assert accuracies[2, [0, 1, 3]].max() < 0.65
    assert accuracies[[0, 1, 3], 2].max() < 0.65
    assert result.best != 2


def test_values_are_the_means_of_symmetric_pairs():
    # An encoder that reads the wrong dimensions: good images, bad codes.
    blind = member(PLAIN, reader=ROTATION)
    result = score([member(PLAIN), blind, member(TURNED)])
    accuracies = result.details["accuracies"]
    assert accuracies[1, 0] == 1.0 > 0.7 > accuracies[0, 1]
    np.testing.assert_allclose(result.pairs, (accuracies + accuracies.T) / 2)
    for i in range(3):
        np.testing.assert_allclose(result.values[i], np.delete(result.pairs[i], i).mean())
    assert result.values[1] < min(result.values[0], result.values[2])


def random_reader():
    rng = np.random.default_rng(8)
    return lambda images: rng.standard_normal((len(images), D))


def test_codes_that_do_not_see_the_images_are_near_chance():
    """Each dimension takes its luckiest of four: somewhat above 1 / 4, less so of more votes."""
    generate = member(PLAIN)[0]
    few = score([(generate, random_reader())] * 2).values
    assert ((few > 0.25) & (few < 0.5)).all()
    many = score([(generate, random_reader())] * 2, protocol="lin2020").values
    assert (np.abs(many - 0.28) < 0.04).all()


def test_a_dimension_that_is_switched_off_is_held_and_counts_against_the_member():
    """Two of four dimensions reach the images: their votes are right, the others' fall anywhere."""
    half = np.diag([1.0, 1.0, 0.0, 0.0])
    nats = np.array([[1.0, 1.0, 0.0, 0.0]] * 2)
    result = score([member(half, reader=half)] * 2, nats)
    np.testing.assert_allclose(result.values, 0.5, atol=0.05)


def test_a_member_that_collapsed_to_one_dimension_is_not_the_medoid():
    line = np.diag([1.0, 0, 0, 0])
    nats = np.array([[1.0] * D] * 2 + [[1.0, 0, 0, 0]])
    result = score([member(PLAIN), member(TURNED), member(line, reader=line)], nats)
    assert result.values[2] < 0.5 < result.values[:2].min()


@jax.jit
def resting(images):
    """The images' dimensions, not quite apart; the last is at rest but for 2 images in 100."""
    codes = images[:, 0, 0, :] @ (jnp.eye(D) + 0.05)
    return codes.at[:, -1].set(jnp.where(jnp.abs(codes[:, 0]) > 2.3, 1.0, 0.0))


@jax.jit
def with_a_constant(images):
    return images[:, 0, 0, :].at[:, -1].set(0.1)


def test_a_dimension_of_few_nats_never_votes():
    """Over a vote's images it mostly rests, so its normalised variance is the least of all."""
    members = [member(PLAIN), (member(PLAIN)[0], resting)]
    nats = np.ones((2, D))
    nats[1, -1] = 0.01
    kept_out = score(members, nats).details["accuracies"][0, 1]
    nats[1, -1] = 0.011
    votes = score(members, nats).details["accuracies"][0, 1]
    assert votes < 0.65 < 0.74 < kept_out
    # The authors' numbers prune nothing.
    assert score(members, nats, protocol="lin2020").details["active"].all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_constant_dimension_never_votes(protocol):
    result = score([member(PLAIN), (member(PLAIN)[0], with_a_constant)], protocol=protocol)
    assert result.details["accuracies"][0, 1] == 0.75


def test_members_that_tell_nothing_have_zero():
    assert score([member(PLAIN)] * 2, np.zeros((2, D))).values.tolist() == [0.0, 0.0]
    constant = lambda images: jnp.full((len(images), D), 0.1)  # noqa: E731
    result = score([member(PLAIN), (member(PLAIN)[0], constant)])
    assert result.details["accuracies"].tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_permuting_an_encoders_dimensions_changes_nothing():
    mixed = PLAIN + 0.7 * np.random.default_rng(0).standard_normal((D, D))
    order, nats = [3, 1, 0, 2], np.ones((2, D))
    nats[1, 2] = 0.0
    generate, reader = member(PLAIN)[0], np.linalg.inv(mixed)
    plain = score([member(PLAIN), (generate, member(PLAIN, reader)[1])], nats)
    nats[1] = nats[1, order]
    turned = score([member(PLAIN), (generate, member(PLAIN, reader[:, order])[1])], nats)
    assert 0.3 < plain.details["accuracies"][0, 1] < 0.95
    assert turned.values.tolist() == plain.values.tolist()


def test_an_image_is_made_once_in_batches_of_one_shape():
    calls, shapes = {"made": 0, "read": 0}, set()
    generate, encode = member(PLAIN)

    def counted_generate(codes):
        calls["made"] += 1
        shapes.add(codes.shape)
        return generate(codes)

    def counted_encode(images):
        calls["read"] += 1
        return encode(images)

    score([(counted_generate, counted_encode)] * 3)
    batches = 10 * D + 288 // 32
    assert calls == {"made": 3 * batches, "read": 9 * batches}
    assert shapes == {(32, D)}


def test_short_is_cheap():
    numbers = PROTOCOLS["short"]
    assert 10 * numbers.votes * numbers.samples + numbers.normaliser_samples <= 3_500


def test_the_held_dimension_is_alike_within_a_vote_and_takes_its_turn():
    from ibgan_jax.metrics.model_centrality import _draw_codes

    settings = dataclasses.replace(PROTOCOLS["short"], votes=3, samples=8, normaliser_samples=20)
    fixed, codes = _draw_codes(np.random.default_rng(0), D, settings)
    assert fixed.tolist() == [0, 1, 2, 3] * 3
    assert codes.shape == (12 + 3, 8, D)
    same = (codes == codes[:, :1]).all(axis=1)
    assert (same[:12] == np.eye(D, dtype=bool)[fixed]).all()
    assert not same[12:].any()


def test_the_key_alone_decides():
    members = [member(PLAIN), member(ROTATION)]
    one, again = score(members), score(members)
    assert one.as_dict() == again.as_dict()
    other = score(members, key=jax.random.key(4))
    assert (one.details["accuracies"] != other.details["accuracies"]).any()


def test_the_record_is_plain_and_complete():
    record = json.loads(json.dumps(score([member(PLAIN)] * 2).as_dict(), allow_nan=False))
    assert (record["metric"], record["protocol"]) == ("model_centrality", "short")
    assert record["settings"] == {
        "votes": 10,
        "samples": 32,
        "normaliser_samples": 288,
        "threshold": 0.01,
    }
    assert record["key"] == jax.random.key_data(KEY).tolist()
    assert (record["values"], record["best"]) == ([1.0, 1.0], 0)
    assert np.shape(record["accuracies"]) == np.shape(record["pairs"]) == (2, 2)
    assert "details" not in record


GENERATE, ENCODE = member(PLAIN)


@pytest.mark.parametrize(
    ("generators", "encoders", "nats", "protocol", "words"),
    [
        ([GENERATE] * 2, [ENCODE] * 2, np.ones((2, D)), "mine", "short, lin2020"),
        ([GENERATE], [ENCODE], np.ones((1, D)), "short", "two or more"),
        ([GENERATE] * 3, [ENCODE] * 2, np.ones((3, D)), "short", "3, 2 and 3"),
        ([GENERATE] * 2, [ENCODE] * 2, np.ones((3, D)), "short", "2, 2 and 3"),
        ([GENERATE] * 2, [ENCODE] * 2, np.ones(D), "short", r"\[M, d\]"),
        ([GENERATE] * 2, [ENCODE] * 2, np.full((2, D), np.nan), "short", "nats must be finite"),
        (
            [GENERATE] * 2,
            [ENCODE, lambda x: x[:, 0, 0, :2]],
            np.ones((2, D)),
            "short",
            r"member 1's codes must be \(32, 4\)",
        ),
        (
            [GENERATE, lambda z: GENERATE(z) * jnp.nan],
            [ENCODE] * 2,
            np.ones((2, D)),
            "short",
            "member 0's codes of member 1's images are not finite",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(generators, encoders, nats, protocol, words):
    with pytest.raises(UserError, match=words) as error:
        model_centrality(generators, encoders, nats, KEY, protocol)
    assert "\n" not in str(error.value)
