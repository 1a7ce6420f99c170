"""Plain texts: a row by line, paragraph or document, its ends as they are."""

import pytest

from llmft.config.schema import TextBy
from llmft.data.source import Layout, read
from llmft.errors import DataError

TEXT = b"\xef\xbb\xbf\r\n  First line \r\nsecond\r\n \t\r\n\r\nThird, \xe2\x80\xa8same\r\n\r\n"


@pytest.mark.parametrize(
    ("text_by", "rows"),
    [
        (TextBy.line, [(2, "  First line "), (3, "second"), (6, "Third, \u2028same")]),
        (TextBy.paragraph, [(2, "  First line \nsecond"), (6, "Third, \u2028same")]),
        (TextBy.document, [(1, "\n  First line \nsecond\n \t\n\nThird, \u2028same\n\n")]),
    ],
)
def test_text_by(tmp_path, text_by, rows):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT)
    found = [(row.where, row.fields) for row in read(path, Layout(text_by=text_by))]
    assert found == [(f"{path}:{line}", {"text": text}) for line, text in rows]
    for blank in (b"", b" \n\n"):
        path.write_bytes(blank)
        assert list(read(path, Layout(text_by=text_by))) == []


def test_ends_of_text_stay(tmp_path):
    path = tmp_path / "a.txt"
    for content in ("one\ntwo", "one\n\ntwo\n", "\n\none"):
        path.write_text(content)
        assert [row.fields["text"] for row in read(path, Layout(text_by=TextBy.document))] == [content]
    path.write_text("one\ntwo\n\nthree")
    assert [row.fields["text"] for row in read(path, Layout(text_by=TextBy.paragraph))] == ["one\ntwo", "three"]


def test_bad_bytes_spoil_their_paragraph_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntw\xff\n\nthree\n\n\xfe\n")
    bad = []
    assert [row.fields["text"] for row in read(path, Layout(text_by=TextBy.paragraph), 2, bad)] == ["three"]
    assert [row.where for row in bad] == [f"{path}:2", f"{path}:6"]
    with pytest.raises(DataError, match=r"a\.txt:2: byte 0xff at byte offset 6"):
        list(read(path, Layout(text_by=TextBy.document)))
