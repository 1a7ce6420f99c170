"""Tables of cells by hand: rows and lines of names that do not fit, separators and quotes."""

from collections.abc import Iterator

from data_case import CSV, NUMBERS, PLACES, ROWS, TSV, Case, Format, accepted, changed, refused


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for form in (CSV, TSV):
        yield from cells(form)
    yield from quotes()


def cells(form: Format) -> Iterator[Case]:
    """Tables of cells: rows and lines of names that do not fit."""
    mark = b"," if form is CSV else b"\t"
    for place in PLACES:
        lines, at = form.lines(), form.first + place
        for what, line, count in (("one", b"x", 1), ("three", mark.join([b"x", b"y", b"z"]), 3), ("a blank", b"  ", 1)):
            said = f"{count} cells; expected 2: a, b."
            yield refused(f"{what} cell in row {place + 1}", form, form.joined(changed(lines, place, line)), at, said)
        again = form.joined(changed(lines, place, mark.join([b"a", b"b"])))
        yield refused(f"names again in row {place + 1}", form, again, at, "the columns' names stand here again")
        marked = [*ROWS[:place], ("\ufeffx", "y"), *ROWS[place + 1 :]]
        content = form.joined(changed(lines, place, b"\xef\xbb\xbfx" + mark + b"y"))
        yield accepted(f"byte order mark in row {place + 1}", form, content, marked)
        empty = form.joined(changed(lines, place, b"x" + mark))
        yield refused(f"no target in row {place + 1}", form, empty, at, "the target is empty")
    body = form.joined(form.lines()).removeprefix(form.above)
    for what, names, said in (
        ("a name twice", [b"a", b"a"], "two columns are named 'a'"),
        ("no name", [b"a", b""], "column 2 has no name"),
        ("a blank name", [b" ", b"b"], "column 1 has no name"),
    ):
        yield refused(what, form, mark.join(names) + b"\n" + body, 1, said)
    yield refused("other names", form, mark.join([b"c", b"b"]) + b"\n" + body, 2, "no column 'a'; the row has c, b.")
    yield refused("no line of names", form, body, 2, "no column 'a'; the row has NA, 001.")
    yield refused("names twice over", form, form.above + form.joined(form.lines()), 2, "the columns' names stand here again")
    for other, word in (
        (b";", "semicolons"),
        (b"|", "bars"),
        (b"\t" if form is CSV else b",", "tabs" if form is CSV else "commas"),
    ):
        content = b"".join(other.join([b"p", b"q"]).replace(b"p", left).replace(b"q", right) + b"\n"
                           for left, right in [(b"a", b"b"), (b"x", b"y")])  # fmt: skip
        yield refused(f"{word} between cells", form, content, 1, f"and found {word}.")
    yield refused("CR alone", form, form.joined(form.lines(), b"\r"), 1 if form is CSV else None, "")
    cut = form.joined(form.lines(), last=b"")
    at = cut.rindex(mark)
    yield refused("cut before the last cell", form, cut[:at], form.first + len(ROWS) - 1, "may have been cut off")
    yield accepted("cut within the last cell", form, cut[:-1], [*ROWS[:-1], ("the last", "0.1")])
    named = {"columns": ["a", "b"]}
    yield accepted("names given", form, body, list(ROWS), [1 + number for number in NUMBERS], **named)
    yield refused(
        "names given and there", form, form.joined(form.lines()), 1, "the file has a line with the columns' names", **named
    )


def quotes() -> Iterator[Case]:
    """Quoting in CSV; in TSV quotes are characters."""
    for place in PLACES:
        lines, at = CSV.lines(), CSV.first + place
        kept = [*ROWS[:place], ("l1\r\nl2\n", 'q"'), *ROWS[place + 1 :]]
        places = [CSV.first + number + 2 * (number > place) for number in NUMBERS]
        yield accepted(
            f"line ends in row {place + 1}", CSV, CSV.joined(changed(lines, place, b'"l1\r\nl2\n","q"""')), kept, places
        )
        for what, line, said in (
            ("never closed", b'"x,y', "a quoted cell is never closed"),
            ("text behind", b'"x" z,y', "broken quoting or line end"),
            ("backslash", b'"x\\"y",z', "broken quoting or line end"),
            ("CR", b"x\ry,z", "broken quoting or line end"),
        ):
            if what == "never closed" and place != len(ROWS) - 1:
                continue  # it goes on to the next quote, which closes it
            yield refused(f"{what} in row {place + 1}", CSV, CSV.joined(changed(lines, place, line)), at, said)
        kept = [*ROWS[:place], ('x"y', "z'"), *ROWS[place + 1 :]]
        yield accepted(f"a quote within in row {place + 1}", CSV, CSV.joined(changed(lines, place, b"x\"y,z'")), kept)
        kept = [*ROWS[:place], ('"x', '"y" z'), *ROWS[place + 1 :]]
        yield accepted(f"quotes in row {place + 1}", TSV, TSV.joined(changed(TSV.lines(), place, b'"x\t"y" z')), kept)
