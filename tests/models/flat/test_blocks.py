"""Which queries meet which keys, worked out by hand."""

from llmft.models.flat import blocks as cut
from llmft.models.flat.blocks import blocks_of


def test_blocks_leave_out_what_no_query_sees():
    """Of 400 tokens four blocks, each with the keys up to its last one: under two thirds of all pairs."""
    blocks = blocks_of((400,), None)
    assert [block.rows for block in blocks] == [slice(0, 96), slice(96, 192), slice(192, 288), slice(288, 400)]
    assert [block.keys for block in blocks] == [(slice(0, 96),), (slice(0, 192),), (slice(0, 288),), (slice(0, 400),)]
    assert [block.hidden.shape[1] for block in blocks] == [95, 95, 95, 111]  # all see the first key of their own block


def test_a_window_leaves_out_what_is_before_it():
    blocks = blocks_of((400,), 16)
    assert [block.keys for block in blocks] == [(slice(0, 96),), (slice(81, 193),), (slice(177, 289),), (slice(273, 401),)]


def test_sizes_are_few():
    """Of documents of 1 to 500 tokens: blocks of 16 to 144 queries, behind none or up to four of 96."""
    blocks = blocks_of(range(1, 501), None)
    assert {(len(block.hidden), block.shown) for block in blocks} <= {
        (rows, 96 * before + rows) for rows in range(16, 160, 16) for before in range(5)
    }


def test_blocks_of_long_documents_are_small(monkeypatch):
    monkeypatch.setattr(cut, "MOST_SCORES", 64 * 800)
    blocks = blocks_of((800, 40), None)
    assert [len(block.hidden) for block in blocks] == [64] * 11 + [96, 48]
