"""The order of examples: fresh permutations, the same from wherever one starts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibgan_jax.data.order import Order, batch_indices


@given(st.integers(1, 40), st.integers(-(2**70), 2**70), st.integers(0, 2**64))
def test_every_epoch_is_a_permutation(size, seed, epoch):
    indices = Order(size, seed).indices(epoch * size, size)
    assert sorted(indices) == list(range(size))


@given(st.integers(1, 12), st.integers(0, 60), st.integers(0, 60))
def test_any_start_gives_a_part_of_the_same_sequence(size, first, count):
    whole = Order(size, 3).indices(0, 120)
    part = Order(size, 3).indices(first, count)
    assert part.dtype == np.int64
    np.testing.assert_array_equal(part, whole[first : first + count])


def test_epochs_and_seeds_differ():
    order = Order(1000, 0)
    first, second = order.indices(0, 1000), order.indices(1000, 1000)
    # Two unrelated permutations agree in one place on average.
    assert (first == second).sum() < 10
    assert (first == Order(1000, 1).indices(0, 1000)).sum() < 10
    np.testing.assert_array_equal(first, Order(1000, 0).indices(0, 1000))


def test_going_back_and_far_ahead():
    order = Order(7, 5)
    start = order.indices(0, 30)
    order.indices(7 * 10**9, 3)
    np.testing.assert_array_equal(order.indices(0, 30), start)


def test_the_sequence_stays_what_it_was():
    # A resumed run relies on this: another NumPy must not change it.
    expected = [0, 2, 9, 1, 8, 5, 4, 3, 6, 7, 5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert Order(10, 0).indices(0, 20).tolist() == expected


def test_batches_take_consecutive_positions():
    order, other = Order(10, 0), Order(10, 1)
    np.testing.assert_array_equal(
        batch_indices([order, other], step=3, steps=4, batch_size=5),
        [x.indices(15, 20).reshape(4, 5) for x in (order, other)],
    )


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, -1)])
def test_negative_positions(first, count):
    with pytest.raises(ValueError, match="must not be negative"):
        Order(3, 0).indices(first, count)


def test_an_empty_data_set():
    with pytest.raises(ValueError, match="at least 1"):
        Order(0, 0)
