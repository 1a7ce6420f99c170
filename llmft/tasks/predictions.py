"""Predictions files: written by llmft or by anything else, read back and put beside the examples they belong to."""

from collections.abc import Sequence
from pathlib import Path

from llmft.data.example import Example, Prediction
from llmft.data.row import Row
from llmft.data.source import kind_of, read
from llmft.errors import DataError
from llmft.tasks.formulation import Formulation


def read_predictions(path: Path, formulation: Formulation, examples: Sequence[Example], references: str) -> list[Prediction]:
    """Return one prediction per example, in their order: by id where the file has ids, else line by line.

    Raises DataError for a row without prediction, for ids that are missing, unknown or there twice, and for another number
    of rows than `references` has: scorers that pair what is there give such files a score.
    """
    if not path.is_file():
        raise DataError(f"predictions={path}: there is no such file")
    rows = [as_prediction(row, kind_of(path)) for row in read(path, every_line=True)]
    named = [row for row in rows if "id" in row.fields]
    if named and len(named) < len(rows):
        alone = next(row for row in rows if "id" not in row.fields)
        raise DataError(
            f"{alone.where}: no id, which {len(named)} of the {len(rows)} predictions have. Give each row its id, or none of them."
        )
    if named:
        rows = by_id(rows, [example.id for example in examples], path, references)
    elif len(rows) != len(examples):
        raise DataError(
            f"predictions={path}: {len(rows)} predictions for {len(examples)} rows of {references}; the first without a partner is "
            f"{first_alone(rows, examples)}. Expected one for each, in the same order, or an id in each row."
        )
    return [formulation.from_row(example.id, row.fields, row.where) for example, row in zip(examples, rows, strict=True)]


def as_prediction(row: Row, kind: str | None) -> Row:
    """Return a row with the column `prediction`; the line of a text file is one."""
    fields = {"prediction": row.fields["text"]} if kind == ".txt" else row.fields
    if "prediction" not in fields:
        raise DataError(
            f"{row.where}: no column 'prediction'; the row has {', '.join(map(str, fields))}. Expected what `llmft predict` "
            "writes: id and prediction."
        )
    return Row(fields, row.where)


def by_id(rows: Sequence[Row], wanted: Sequence[str], path: Path, references: str) -> list[Row]:
    """Return the rows in the order of the ids."""
    found: dict[str, Row] = {}
    for row in rows:
        id = str(row.fields["id"])
        if id in found:
            raise DataError(f"{row.where}: the id {id!r} stands in {found[id].where} already. Leave one of them out.")
        found[id] = row
    seen = set()
    for id in wanted:
        if id in seen:
            raise DataError(
                f"{references}: the id {id!r} stands there twice, so that predictions cannot be told apart. Rename one."
            )
        seen.add(id)
        if id not in found:
            raise DataError(
                f"predictions={path}: none with the id {id!r}, which {references} has ({len(found)} predictions, {len(wanted)} "
                "rows). Predict it; an empty prediction counts as wrong."
            )
    for id, row in found.items():
        if id not in seen:
            raise DataError(f"{row.where}: {references} has no row with the id {id!r}. Leave it out, or name its references.")
    return [found[id] for id in wanted]


def first_alone(rows: Sequence[Row], examples: Sequence[Example]) -> str:
    """Return where the first row stands that has no partner."""
    return rows[len(examples)].where if len(rows) > len(examples) else examples[len(rows)].where
