"""Tables: values as they are, and damage noticed before it does any."""

from datetime import date

import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from llmft.data.source import read
from llmft.errors import DataError

BIG = 2**63 + 1
TABLE = pyarrow.table(
    {"a": ["NA", None], "n": pyarrow.array([BIG, 1], pyarrow.uint64()), "l": [["x"], []], "s": [{"k": 1}] * 2}
)
ROWS = [{"a": "NA", "n": BIG, "l": ["x"], "s": {"k": 1}}, {"a": None, "n": 1, "l": [], "s": {"k": 1}}]


def write_stream(table, path):
    with pyarrow.ipc.new_stream(path, table.schema) as out:
        out.write_table(table)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.parquet", pyarrow.parquet.write_table),
        ("a.feather", pyarrow.feather.write_feather),
        ("a.arrow", write_stream),
    ],
)
def test_tables(tmp_path, name, write):
    path = tmp_path / name
    write(TABLE, str(path))
    assert [(row.fields, row.where) for row in read(path)] == [(ROWS[0], f"{path}:row 1"), (ROWS[1], f"{path}:row 2")]


def test_table_with_nul(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": ["x", "y\0"], "d": [date(2020, 1, 1)] * 2}), path)
    with pytest.raises(DataError, match=r"a\.parquet:row 2: NUL character"):
        list(read(path))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PAR1PAR1"])
def test_damaged_tables(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: not a readable .*Fetch or write the file again"):
        list(read(path))
