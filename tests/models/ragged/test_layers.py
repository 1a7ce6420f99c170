"""The document that fills a batch up. That it changes nothing is tested with the layers, by the fixture `filled`."""

import pytest
import torch

from llmft.models import filling
from llmft.models.ragged.layers import Asked, filled_up


@pytest.mark.parametrize("lengths", [(60, 4), (60, 5), (1,), (64, 63)])
@pytest.mark.parametrize("read", [(), (30, 34), (30, 35)])
def test_a_document_fills_a_batch_up(lengths, read):
    read = read[: len(lengths)]
    asked = Asked(torch.tensor([0]), (1,) + (0,) * (len(lengths) - 1))
    found, found_read, found_asked = filled_up(lengths, read, asked)
    assert sum(found) % filling.STEP == sum(found_read) % filling.STEP == 0
    assert (found[: len(lengths)], found_read[: len(read)]) == (lengths, read)
    assert 0 not in found
    assert 0 not in found_read
    assert len(found) == (len(found_read) if read else len(found_asked.counts)) <= len(lengths) + 1
    assert found_asked.counts[len(lengths) :] in ((), (0,))
    assert sum(found) - sum(lengths) <= filling.STEP
