"""JSON by hand: what is none, what reads differently elsewhere, and columns that do not hold what they should."""

from collections.abc import Iterator

from data_case import JSON, JSONL, PLACES, ROWS, Case, Format, accepted, changed, refused

VALUES = {
    "NaN": ("NaN", "NaN is not a JSON number"),
    "Infinity": ("-Infinity", "-Infinity is not a JSON number"),
    "too large": ("1e999", "the number 1e999 is too large"),
    "5,000 digits": ("9" * 5000, "4300 digits"),
    "3,000 deep": ("[" * 3000 + "]" * 3000, "nested deeper than 64 levels"),
    "65 deep": ('{"k":' * 65 + "1" + "}" * 65, "nested deeper than 64 levels"),
    "half a surrogate pair": ('"\\ud83d"', "half of a surrogate pair"),
    "escaped NUL": ('"x\\u0000"', "NUL character in 'x\\x00'"),
    "key twice within": ('{"k": 1, "k": 2}', "key 'k' stands twice in one object"),
    "raw control character": ('"x\x01"', "not JSON at column"),
    "raw tab": ('"x\ty"', "not JSON at column"),
    "bad escape": ('"\\x41"', "not JSON at column"),
    "single quotes": ("'x'", "not JSON at column"),
    "Python": ("True", "not JSON at column"),
    "undefined": ("undefined", "not JSON at column"),
    "hexadecimal": ("0x10", "not JSON at column"),
    "leading zero": ("007", "not JSON at column"),
    "plus": ("+1", "not JSON at column"),
    "no digit before the point": (".5", "not JSON at column"),
    "no digit after the point": ("5.", "not JSON at column"),
    "Arabic digit": ("\u0661", "not JSON at column"),
    "nothing": ("", "not JSON at column"),
}
LINES = {
    "key twice": ('{"a": "x", "b": "y", "a": "z"}', "key 'a' stands twice in one object"),
    "trailing comma": ('{"a": "x", "b": "y",}', "not JSON at column"),
    "comment": ("// a comment", "not JSON at column"),
    "a list": ('["x", "y"]', "found ['x', 'y']; expected a JSON object"),
    "a text": ('"x"', "found 'x'; expected a JSON object"),
    "null": ("null", "found None; expected a JSON object"),
    "no quotes": ('{a: "x"}', "not JSON at column"),
    "two values": ('{"a": "x", "b": "y"} {"a": "x", "b": "y"}', ""),
    "BOM": ('\ufeff{"a": "x", "b": "y"}', "not JSON at column 1"),
}
USED = {
    "missing": ('{"b": "y"}', "no column 'a'; the row has b"),
    "misspelt": ('{"A": "x", "b": "y"}', "no column 'a'; the row has A, b. Did you mean 'A'?"),
    "null": ('{"a": null, "b": "y"}', "column 'a' is null; expected text"),
    "an object": ('{"a": {"k": 1}, "b": "y"}', "column 'a' is"),
    "empty target": ('{"a": "x", "b": " "}', "the target is empty"),
    "empty list": ('{"a": [], "b": "y"}', "column 'a' is an empty list"),
    "list with null": ('{"a": ["x", null], "b": "y"}', "column 'a' is a list of 2"),
}
KINDS = {"a number": "3.0", "a truth value": "true", "a number in a list": "[7]"}


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for form in (JSONL, JSON):
        yield from values(form)


def values(form: Format) -> Iterator[Case]:
    """JSON that is none, JSON that reads differently elsewhere, and columns that do not hold what they should."""
    for place in PLACES:
        comma, at = form.between * (place < len(ROWS) - 1), form.first + place

        def with_line(text: str, place: int = place, comma: bytes = comma) -> bytes:
            return form.joined(changed(form.lines(), place, text.encode() + comma))

        for what, (value, said) in VALUES.items():
            for column in ("b", "unused"):
                row = f'{{"a": "x", "b": {value}}}' if column == "b" else f'{{"a": "x", "b": "y", "unused": {value}}}'
                yield refused(f"{what} in {column} of row {place + 1}", form, with_line(row), at, said)
        for what, (line, said) in (LINES | USED).items():
            if what == "two values" and form is JSONL:
                said = "more text after the value, at column 22"
            if (what == "comment" and form is JSON and not comma) or (what == "BOM" and form is JSONL and not place):
                continue  # the line that follows is what does not fit; a mark where a file begins is as it should be
            yield refused(f"{what} in row {place + 1}", form, with_line(line), at, said)
        for what, value in KINDS.items():
            # where the first row is the odd one out, the second one shows it
            line, told = (at, f"{what.removesuffix(' in a list')} (") if place else (at + 1, "text (")
            if what == "a number in a list" and not place:
                line, told = at, "a list of 1 ([7]); expected text, a number or a list of texts"
            yield refused(f"{what} among texts in row {place + 1}", form, with_line(f'{{"a": {value}, "b": "y"}}'), line,
                          f"column 'a' is {told}")  # fmt: skip
        extra = [*ROWS[:place], ("x", "y"), *ROWS[place + 1 :]]
        yield accepted(f"one more column in row {place + 1}", form, with_line('{"z": [1.5], "a": "x", "b": "y"}'), extra)
        several = [*ROWS[:place], ("x y", "p", "q"), *ROWS[place + 1 :]]
        yield accepted(f"lists of texts in row {place + 1}", form, with_line('{"a": ["x", "y"], "b": ["p", "q"]}'), several)
        if place < len(ROWS) - 1 or form is JSONL:
            cut = with_line('{"a": "x", "b": "y"')
            said = "not JSON at column" if place == 0 or form is JSON else "expected one JSON object a line"
            yield refused(f"no brace at the end of row {place + 1}", form, cut, at + (form is JSON), said)
    numbers = ["1.10", "0.1234567890123456789", "1E5", "1e-400", "-0.0", str(2**63 + 1), str(10**40), "0"]
    lines = [f'{{"a": {number}, "b": "y"}}'.encode() + form.between for number in numbers]
    content = form.joined([*lines[:-1], lines[-1].removesuffix(form.between) if form.between else lines[-1]])
    yield accepted("numbers as they are written", form, content, [(number, "y") for number in numbers])
    for size in (1, 9, 17):
        content = form.joined(form.lines(), last=b"").removesuffix(form.below)[:-size]
        yield refused(f"cut {size} bytes from the end", form, content, form.first + len(ROWS) - 1, "may have been cut off")
