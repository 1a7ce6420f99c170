"""Rows of .txt: a line, a paragraph or the whole file each, in the column `text`."""

from collections.abc import Iterator

from llmft.config.schema import TextBy
from llmft.data.row import BadRow, Lines, Row, without_end


def txt_rows(lines: Lines, text_by: TextBy = TextBy.line, every_line: bool = False) -> Iterator[Row | BadRow]:
    """Yield the rows of a text file; blank ones are passed over, by line only unless `every_line` is set.

    Line ends are LF in the rows, whatever they are in the file.
    """
    if text_by is TextBy.paragraph:
        return paragraphs(lines)
    if text_by is TextBy.document:
        return document(lines)
    return single_lines(lines, every_line)


def single_lines(lines: Lines, every_line: bool) -> Iterator[Row | BadRow]:
    """Yield one row per line, without its end."""
    for line in lines:
        fault = lines.take_fault()
        text = without_end(line)
        if fault:
            yield fault
        elif every_line or text.strip():
            yield Row({"text": text}, f"{lines.name}:{lines.number}")


def paragraphs(lines: Lines) -> Iterator[Row | BadRow]:
    """Yield one row per run of lines without a blank one, joined by LF; bytes that are no text spoil their paragraph."""
    held: list[str] = []
    where = ""
    for line in lines:
        text = without_end(line)
        if text.strip():
            where = where if held else f"{lines.name}:{lines.number}"
            held.append(text)
        elif held:
            yield lines.take_fault() or Row({"text": "\n".join(held)}, where)
            held = []
    if held:
        yield lines.take_fault() or Row({"text": "\n".join(held)}, where)


def document(lines: Lines) -> Iterator[Row | BadRow]:
    """Yield the whole file as one row, its last line end included; a file of white space alone has none."""
    text = "".join(without_end(line) + "\n" * line.endswith("\n") for line in lines)
    fault = lines.take_fault()
    if fault:
        yield fault
    elif text.strip():
        yield Row({"text": text}, f"{lines.name}:1")
