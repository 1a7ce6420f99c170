"""Parallel text: lines stay beside each other, and files that are apart are refused."""

import gzip
import hashlib
import json

import pytest

from llmft.config.schema import Data
from llmft.data.dataset import open_splits
from llmft.data.parallel import count_lines, open_parallel
from llmft.data.row import BadRow
from llmft.errors import DataError


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**files):
        for name, content in files.items():
            (tmp_path / name.replace("_", ".")).write_bytes(content)

    return write


def rows(max_bad_rows=0, **files):
    data = Data(train=files, holdout=0.0, max_bad_rows=max_bad_rows)
    return list(open_splits(data, None)["train"])


def test_lines_stay_beside_each_other(write):
    write(
        a_en=b"\xef\xbb\xbfone\r\n\r\n \r\nthree\twith tab\r\nfo\xc3\xbcr\r\n",
        a_de_gz=gzip.compress(b"eins\n\n\t\ndrei\nvier"),
        noending=b"un\n\n\ntrois \nquatre\n",
    )
    found = rows(source="a.en", target="a.de.gz", fr="noending")
    assert [(row.where, row.fields) for row in found] == [
        ("a.en:1", {"source": "one", "target": "eins", "fr": "un"}),
        ("a.en:4", {"source": "three\twith tab", "target": "drei", "fr": "trois "}),
        ("a.en:5", {"source": "foür", "target": "vier", "fr": "quatre"}),
    ]


def test_unusual_line_separators_do_not_part_the_files(write):
    write(a_en="a\u2028b\x0cc\x85d\re\nlast\n".encode(), a_de=b"x\ny\n")
    assert [row.fields["en"] for row in rows(en="a.en", de="a.de")] == ["a\u2028b\x0cc\x85d\re", "last"]


def test_a_line_blank_in_one_file_only(write):
    write(a_en=b"one\n\nthree\n\nfive\n", a_de=b"eins\nzwei\n \n\nfuenf\n")
    piece = open_parallel({"en": "a.en", "de": "a.de"}, "task.data.train")
    assert [row for row in piece.scan() if isinstance(row, BadRow)] == [
        BadRow("a.en:2", "the line is blank in a.en, not in the rest; expected text in all."),
        BadRow("a.en:3", "the line is blank in a.de, not in the rest; expected text in all."),
    ]
    assert [row.fields["de"] for row in rows(en="a.en", de="a.de", max_bad_rows=2)] == ["eins", "fuenf"]
    with pytest.raises(DataError, match=r"^a\.en:3: .* raise task\.data\.max_bad_rows=1 to leave it out\.$"):
        rows(en="a.en", de="a.de", max_bad_rows=1)


def test_bytes_that_are_no_text(write):
    write(a_en=b"one\ntwo\n", a_de=b"eins\nzw\xe9i\n")
    with pytest.raises(DataError, match=r"^a\.de:2: byte 0xe9 at byte offset 7 of the file is not UTF-8"):
        rows(en="a.en", de="a.de")
    write(a_de="eins\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"^a\.de:1: expected UTF-8 text, but the file is UTF-16"):
        rows(en="a.en", de="a.de")


def test_other_numbers_of_lines(write):
    write(a_en=b"one\ntwo\nthree", a_de=b"eins\nzwei\n")
    with pytest.raises(DataError) as caught:
        rows(en="a.en", de="a.de")
    assert str(caught.value) == (
        "a.en has 3 lines, a.de has 2 lines; parallel files need one line for each other. "
        "Find the line where they part, and repair it."
    )


@pytest.mark.parametrize(
    ("content", "lines"), [(b"", 0), (b"\n", 1), (b"a", 1), (b"a\n", 1), (b"a\n\nb", 3), (b"a\r\nb\r\n", 2)]
)
def test_count_lines(tmp_path, content, lines):
    path = tmp_path / "a"
    path.write_bytes(content)
    assert count_lines(path) == lines


def test_files_that_cannot_be_read(write, tmp_path):
    write(a_en=b"one\n", a_gz=b"one\n", b_gz=gzip.compress(b"one\n" * 99)[:-9])
    with pytest.raises(DataError) as caught:
        rows(en="a.en", de="b.de")
    assert str(caught.value) == (
        "task.data.train: there is no file b.de for the column 'de'; expected a text file for each column, a text a line. "
        "Correct the name."
    )
    with pytest.raises(DataError, match=r"^a\.gz: cannot be read: Not a gzipped file"):
        rows(en="a.en", de="a.gz")
    with pytest.raises(DataError, match=r"^b\.gz: cannot be read: Compressed file ended before"):
        rows(en="a.en", de="b.gz")


def test_content_and_record(write):
    write(a_en=b"one\n", a_de=b"eins\n", copy=b"one\n")
    splits = {name: open_splits(Data(train=files, holdout=0.0), None)["train"] for name, files in {
        "first": {"en": "a.en", "de": "a.de"},
        "copy": {"en": "copy", "de": "a.de"},
        "swapped": {"en": "a.de", "de": "a.en"},
        "renamed": {"x": "a.en", "de": "a.de"},
    }.items()}  # fmt: skip
    hashes = [hashlib.sha256(content).hexdigest() for content in (b"one\n", b"eins\n")]
    expected = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    assert splits["first"].files == [{"path": "a.en + a.de", "bytes": 9, "sha256": expected}]
    assert splits["first"].content == splits["copy"].content
    assert len({source.content for source in splits.values()}) == 3
    assert splits["first"].description == "a.en + a.de"


def test_held_out_by_content(write):
    write(a_en=b"".join(b"line %d\n" % n for n in range(400)), a_de=b"".join(b"Zeile %d\n" % n for n in range(400)))
    splits = open_splits(Data(train={"en": "a.en", "de": "a.de"}, holdout=0.1, max_train=5), None)
    assert {name: 20 < sum(1 for _ in source) < 60 for name, source in splits.items()} == {
        "train": False, "validation": True, "test": True,
    }  # fmt: skip
    assert sum(1 for _ in splits["train"]) == 5
    for source in splits.values():
        assert all(row.fields["en"].split()[1] == row.fields["de"].split()[1] for row in source)
