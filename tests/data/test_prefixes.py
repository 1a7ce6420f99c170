"""Documents that begin alike: what they share is there once, and each can be read back from the pieces."""

import numpy as np
import pytest

from llmft.data import prefixes
from llmft.data.batch import collate_decoder
from llmft.data.encode import Encoded
from llmft.data.prefixes import collate_shared, cut_shared, pieces_of, with_twin
from llmft.models.path_check import CHECKED_LOSS, CHECKED_TOKENS


def document(id, ids, answer):
    mask = np.arange(len(ids)) >= len(ids) - answer
    return Encoded(id, np.array(ids, np.int32), mask, None, f"f:{id}", int(mask[1:].sum()))


TEXT, OTHER = list(range(100, 140)), list(range(200, 230))
DOCUMENTS = [
    document("a", [*TEXT, 1, 2, 3], 2),
    document("b", [*OTHER, 9, 8, 7, 6], 2),
    document("c", [*TEXT, 1, 5, 6, 7, 8], 2),
    document("d", [*OTHER, 9, 8, 7], 1),
    document("e", [50, 51, 52], 1),
    document("f", [*TEXT[:20], 60, 61, 62], 2),
]


def read_back(batch, pieces):
    """The tokens of each document, from the pieces up to its end."""
    starts = np.cumsum([0, *batch.stream.lengths])
    own = [batch.stream.tokens_N[starts[n] : starts[n + 1]].tolist() for n in range(len(pieces))]
    places = [batch.stream.positions_N[starts[n] : starts[n + 1]].tolist() for n in range(len(pieces))]
    found = {}
    for n, piece in enumerate(pieces):
        if n in {each.parent for each in pieces}:
            continue
        tokens, positions, at = own[n], places[n], piece.parent
        while at >= 0:
            tokens, positions, at = own[at] + tokens, places[at] + positions, pieces[at].parent
        assert positions == list(range(len(tokens)))
        found[piece.document] = tokens
    return found


def test_each_document_can_be_read_back():
    pieces, batch = pieces_of(DOCUMENTS), collate_shared(DOCUMENTS)
    assert read_back(batch, pieces) == {place: each.ids.tolist() for place, each in enumerate(DOCUMENTS)}
    # a, c and f share 20 tokens, a and c 20 more; b and d share 31: the 32nd one's row predicts an answer; e is alone
    assert len(batch.stream.tokens_N) == 20 + 20 + 3 + 5 + 3 + 31 + 3 + 2 + 3
    assert sorted(batch.targets_M.tolist()) == sorted(collate_decoder(DOCUMENTS).targets_M.tolist())


def test_rows_predict_what_follows_them():
    batch, pieces = collate_shared(DOCUMENTS), pieces_of(DOCUMENTS)
    ends = np.cumsum(batch.stream.lengths)
    for row, target in zip(batch.loss_rows_M.tolist(), batch.targets_M.tolist(), strict=True):
        piece = pieces[int(np.searchsorted(ends, row, side="right"))]
        place = int(batch.stream.positions_N[row])
        assert DOCUMENTS[piece.document].ids[place + 1] == target
        assert DOCUMENTS[piece.document].loss_mask[place + 1]


def test_tokens_that_bear_loss_are_not_shared():
    twins = [document(id, [*TEXT, 1, 2, 3], 43) for id in "ab"]  # learnt from the first token on
    assert collate_shared(twins).stream.parents is None
    assert len(pieces_of(twins)) == 2


def test_little_is_not_worth_sharing():
    alike = [document("a", [*TEXT[:10], 1, 2], 1), document("b", [*TEXT[:10], 3, 4], 1)]
    assert collate_shared(alike).stream.parents is None
    long = [document("a", [*TEXT[:16], *range(1000, 2000)], 1), document("b", [*TEXT[:16], *range(3000, 4000)], 1)]
    assert collate_shared(long).stream.parents is None


def test_micro_batches_hold_together_what_begins_alike(monkeypatch):
    found = [[each.id for each in part] for part in cut_shared(DOCUMENTS, 60)]
    assert sorted(id for part in found for id in part) == list("abcdef")
    assert any({"a", "c"} <= set(part) for part in found)
    assert any({"b", "d"} <= set(part) for part in found)
    monkeypatch.setattr(prefixes, "SHORTEST", 1000)
    assert next(each.id for part in cut_shared(DOCUMENTS, 45) for each in part) == "c"  # the longest, as without sharing


@pytest.mark.parametrize("seed", range(5))
def test_random_documents(seed):
    random = np.random.default_rng(seed)
    made = []
    for number in range(30):
        begin = made[random.integers(len(made))].ids[: random.integers(1, 60)].tolist() if made else []
        made.append(document(str(number), [*begin, *random.integers(0, 50, random.integers(3, 60)).tolist()], 2))
    assert read_back(collate_shared(made), pieces_of(made)) == {place: each.ids.tolist() for place, each in enumerate(made)}


@pytest.mark.parametrize("answer", [1, 20, 60])
def test_what_the_paths_are_compared_on_begins_alike(answer):
    """However long answers are: what is shared would go unchecked where the compared ends are all answer."""
    ids = [np.arange(number, number + 60, dtype=np.int32) for number in (0, 100)]
    mask = np.arange(60) >= 60 - answer
    ends = [Encoded("a", each, mask, None, "f:1", answer).tail(CHECKED_TOKENS, CHECKED_LOSS) for each in ids]
    assert collate_shared(with_twin(ends)).stream.parents is not None
