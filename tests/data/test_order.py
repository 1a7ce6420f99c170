"""The order of rows: every row once an epoch, the same for a seed wherever one starts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.data.order import Order


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 2**40), st.integers(0, 3))
def test_every_row_once_an_epoch(num_rows, batch_size, seed, epoch):
    order = Order(num_rows, batch_size, seed)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    batches = [order.rows_of_step(step) for step in steps]
    assert sorted(row for batch in batches for row in batch) == list(range(num_rows))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert {order.epoch_of(step) for step in steps} == {epoch}


def test_steps_per_epoch():
    assert [Order(rows, 4, 0).steps_per_epoch for rows in (1, 4, 5, 8)] == [1, 1, 2, 2]


def test_order_of_visits_does_not_matter():
    forward = Order(23, 4, 7)
    steps = {step: forward.rows_of_step(step) for step in range(20)}
    for step in (19, 0, 7, 6, 13):
        assert Order(23, 4, 7).rows_of_step(step) == steps[step]
        assert forward.rows_of_step(step) == steps[step]


def test_permutation_is_numpys():
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([42, 1])))
    assert Order(10, 10, 42).rows_of_step(1) == generator.permutation(10).tolist()


def test_known_order():
    """Written down, so that another numpy cannot change the order of runs unnoticed."""
    assert Order(10, 4, 3).rows_of_step(0) == [9, 6, 0, 2]
    assert Order(10, 4, 3).rows_of_step(3) == [4, 1, 2, 8]


def test_epochs_and_seeds_differ():
    order = Order(100, 100, 0)
    assert len({tuple(order.rows_of_step(epoch)) for epoch in range(5)}) == 5
    assert order.rows_of_step(0) != Order(100, 100, 1).rows_of_step(0)
    assert order.rows_of_step(1) != Order(100, 100, 1).rows_of_step(0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 2**40))
def test_rows_of_a_group_stay_together(groups, batch_size, seed):
    order = Order(len(groups), batch_size, seed, np.array(groups))
    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        rows = [row for step in steps for row in order.rows_of_step(step)]
        assert sorted(rows) == list(range(len(groups)))
        changes = sum(groups[one] != groups[two] for one, two in pairwise(rows))
        bundles = sum(-(-groups.count(group) // batch_size) for group in set(groups))
        assert changes <= bundles - 1


def test_groups_and_rows_in_them_are_shuffled_anew():
    order = Order(40, 8, 0, np.repeat(np.arange(10), 4))
    epochs = [[row for step in range(5 * epoch, 5 * epoch + 5) for row in order.rows_of_step(step)] for epoch in range(9)]
    assert len({tuple(row // 4 for row in rows) for rows in epochs}) == 9
    assert {rows.index(0) < rows.index(1) for rows in epochs} == {True, False}


def test_a_group_of_all_rows_is_not_one_after_the_other():
    order = Order(64, 4, 0, np.zeros(64, np.int64))
    assert order.rows_of_step(0) != Order(64, 4, 1, np.zeros(64, np.int64)).rows_of_step(0)


def test_no_rows():
    with pytest.raises(AssertionError, match="no rows"):
        Order(0, 4, 0)
