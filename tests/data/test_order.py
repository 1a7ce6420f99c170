"""The order of rows: every row once an epoch, the same for a seed wherever one starts."""

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


def test_no_rows():
    with pytest.raises(AssertionError, match="no rows"):
        Order(0, 4, 0)
