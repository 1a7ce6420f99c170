"""Windows over a text: each token is new in one of them."""

import pytest

from llmft.tasks.learn.windows import Window, cut_windows


def test_windows_by_hand():
    assert list(cut_windows(7, 4, 0)) == [Window(0, 4, 0), Window(4, 7, 4)]
    assert list(cut_windows(7, 4, 1)) == [Window(0, 4, 0), Window(3, 7, 4)]
    assert list(cut_windows(8, 4, 2)) == [Window(0, 4, 0), Window(2, 6, 4), Window(4, 8, 6)]
    assert list(cut_windows(3, 4, 2)) == [Window(0, 3, 0)]
    assert list(cut_windows(0, 4, 0)) == []


@pytest.mark.parametrize("count", [1, 5, 16, 17])
@pytest.mark.parametrize(("length", "overlap"), [(4, 0), (4, 3), (5, 2), (20, 1)])
def test_each_token_is_new_once(count, length, overlap):
    windows = list(cut_windows(count, length, overlap))
    assert [place for window in windows for place in range(window.new, window.stop)] == list(range(count))
    assert all(window.stop - window.start <= length for window in windows)
    assert all(later.new - later.start == overlap for later in windows[1:])


def test_windows_that_would_not_move_on():
    with pytest.raises(AssertionError, match="windows of 4 tokens with an overlap of 4"):
        next(cut_windows(9, 4, 4))
