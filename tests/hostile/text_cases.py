"""Text files by hand: what goes wrong with bytes, lines and packing, each fault at the first, a middle and the last row."""

import gzip
from collections.abc import Iterator

from data_case import (
    FORMATS,
    NUMBERS,
    PLACES,
    ROWS,
    TEXTS,
    Case,
    Format,
    accepted,
    changed,
    refused,
)

BYTES = {
    "NUL": (b"\0", "NUL character at byte offset"),
    "0xff": (b"\xff", "byte 0xff at byte offset"),
    "Latin-1": (b"caf\xe9 ", "byte 0xe9 at byte offset"),
    "surrogate in UTF-8": (b"\xed\xa0\x80", "byte 0xed at byte offset"),
    "overlong": (b"\xc0\x80", "byte 0xc0 at byte offset"),
    "half a character": (b"\xf0\x9f\x98 ", "byte 0xf0 at byte offset"),
}
FOREIGN = {
    "zip": (b"PK\x03\x04....", "a zip archive; unpack it"),
    "parquet": (b"PAR1....PAR1", "parquet; give its name the ending .parquet"),
    "arrow": (b"ARROW1....", "arrow; give its name the ending .arrow"),
    "gzip": (gzip.compress(b"a,b\n", mtime=0), "gzip; give its name the ending .gz"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer and not the data"),
}


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for form in FORMATS:
        yield from ends(form)
        yield from spoilt(form)
    for form in TEXTS:
        for what, (content, said) in FOREIGN.items():
            if not (what == "gzip" and form.zipped):
                yield refused(f"is {what}", form, content, 1, said)
        yield from encodings(form)
    yield from packed()


def ends(form: Format) -> Iterator[Case]:
    """Line ends, blank lines, byte order marks, and where files end."""
    lines, good = form.lines(), form.joined(form.lines())
    yield accepted("as it should be", form, good)
    yield accepted("CRLF", form, form.joined(lines, b"\r\n"))
    yield accepted("no end of the last line", form, form.joined(lines, last=b""))
    yield accepted("mixed line ends", form, form.joined([line + b"\r" * (n % 2) for n, line in enumerate(lines)]))
    yield accepted("byte order mark", form, b"\xef\xbb\xbf" + good)
    yield accepted("blank lines", form, form.joined([line + b"\n\r\n" for line in lines[:-1]] + lines[-1:]),
                   list(ROWS), [form.first + 3 * number for number in NUMBERS])  # fmt: skip
    yield accepted("blank lines on top", form, b"\n\r\n" + good, list(ROWS), [form.first + 2 + number for number in NUMBERS])
    long = [(ROWS[0][0] * 500_000, ROWS[0][1]), *ROWS[1:]]
    yield accepted("a line of a megabyte", form, form.joined(form.lines(long)), long)
    yield refused(
        "zero bytes", form, b"", *((1, "the file is empty") if form.ending in (".csv", ".tsv") else (None, "no rows"))
    )
    yield refused("blank", form, b"\n\n", *((1, "the file is empty") if form.ending in (".csv", ".tsv") else (None, "no rows")))
    yield refused("no rows", form, form.above + form.below, None, "no rows for train; expected at least one")


def spoilt(form: Format) -> Iterator[Case]:
    """Bytes that are no text."""
    for place in PLACES:
        for what, (bad, said) in BYTES.items():
            line = form.lines()[place]
            middle = line.index(ROWS[place][0].encode()[:1])
            content = form.joined(changed(form.lines(), place, line[:middle] + bad + line[middle:]))
            yield refused(f"{what} in row {place + 1}", form, content, form.first + place, said)
    if form.above:
        yield refused("bad bytes in the first line", form, b"\xff" + form.joined(form.lines()), 1, "byte 0xff at byte offset 0")


def encodings(form: Format) -> Iterator[Case]:
    """Whole files in another encoding."""
    text = form.joined(form.lines()).decode()
    for code in ("utf-16", "utf-32"):
        yield refused(code, form, text.encode(code), 1, f"the file is {code.upper()} text; convert it: iconv -f {code.upper()}")
    for code in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        yield refused(f"{code} without a mark", form, text.encode(code), 1, "NUL character at byte offset")
    western = form.joined(form.lines([("plain", "plain"), ("Müller", "x")])).decode().encode("latin-1")
    yield refused("latin-1", form, western, form.first + 1, "byte 0xfc at byte offset")
    yield refused(
        "Shift-JIS", form, form.joined(form.lines([("日本", "x")])).decode().encode("shift-jis"), form.first, "is not UTF-8"
    )


def packed() -> Iterator[Case]:
    """Packed files that are damaged, joined, or not packed."""
    for form in FORMATS[len(TEXTS) :]:
        good = form.packed(form.joined(form.lines()))
        name = form.name

        def damaged(what: str, content: bytes, said: str, name: str = name, line: str = ":") -> Case:
            return Case(f"{name}: {what}", {name: content}, None, None, f"{name}{line}", said)

        yield damaged("not packed", form.joined(form.lines()), "cannot be read: Not a gzipped file")
        for size in (1, 4, 8, 20, len(good) - 10, len(good) - 3):
            yield damaged(f"cut by {size} bytes", good[:-size], "cannot be read: Compressed file ended before")
        yield damaged("another checksum", good[:-8] + bytes([good[-8] ^ 1]) + good[-7:], "cannot be read: CRC check failed")
        yield damaged(
            "another length", good[:-4] + bytes([good[-4] ^ 1]) + good[-3:], "cannot be read: Incorrect length of data"
        )
        yield damaged("something behind", good + b"behind", "cannot be read: Not a gzipped file")
        yield damaged("unknown method", good[:2] + b"\x07" + good[3:], "cannot be read: Unknown compression method")
        yield Case(f"{name}: zeros behind", {name: good + b"\0" * 9}, list(ROWS))
        if form.ending == ".jsonl":
            yield Case(f"{name}: two joined", {name: good + good}, [*ROWS, *ROWS])
