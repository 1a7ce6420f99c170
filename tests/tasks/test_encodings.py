"""Which rows stand on the same text, told by tokens in a cache."""

from dataclasses import dataclass

import numpy as np
import pytest

from llmft.data.encode import Encoded
from llmft.data.spool import cached
from llmft.tasks.encodings import FRAME_TOKENS, TEXT_TOKENS, Encodings, shared

FRAME = list(range(1, 41))


@dataclass
class Row:
    """A row that is tokens already, of a decoder or with a source."""

    ids: list[int]
    read: bool

    def encoded(self):
        ids = np.array(self.ids, np.int32)
        answer = np.array([7, 8], np.int32)
        where, mask = "rows.jsonl:1", np.ones(2, np.bool_)
        if self.read:
            return Encoded("a", answer, mask, ids, where, units=2)
        return Encoded("a", np.append(ids, answer), np.append(np.zeros(len(ids), np.bool_), mask), None, where, units=2)


@pytest.fixture
def texts(tmp_path):
    """Numbers of the texts of rows with these tokens."""

    def found(rows, read=False):
        cache = cached(
            tmp_path, str(len(list(tmp_path.iterdir()))), [Row(row, read) for row in rows], lambda row: [row.encoded()]
        )
        return Encodings(cache, np.arange(len(cache), dtype=np.uint32)).texts().tolist()

    return found


@pytest.mark.parametrize("read", [False, True], ids=["decoder", "encoder-decoder"])
def test_questions_on_one_text_behind_a_template(texts, read):
    one, two = list(range(100, 180)), list(range(200, 300))
    rows = [FRAME + one + [5, 6], FRAME + two + [5], FRAME + one + [9], FRAME + two + [4, 4, 4], [*FRAME, 3]]
    assert texts(rows, read) == [0, 1, 0, 1, 2]


def test_texts_that_part_late_are_one_text(texts):
    common = list(range(100, 100 + TEXT_TOKENS))
    assert texts([[1, *common, 5], [1, *common, 6], [1, 2]]) == [0, 0, 1]


def test_rows_that_are_all_alike(texts):
    assert texts([FRAME, FRAME]) == [0, 0]


def test_what_all_have_in_common():
    rows = [np.array(each, np.int32).tobytes() for each in ([1, 2, 3, 4], [1, 2, 3], [1, 2, 9, 4])]
    assert shared(rows) == 2
    assert shared([]) == 0
    assert shared([np.arange(FRAME_TOKENS, dtype=np.int32).tobytes()]) == FRAME_TOKENS
