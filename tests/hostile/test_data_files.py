"""Malformed and odd data files: each is read with the values that it has, or refused with file and line."""

import json

import cell_cases
import crash_lab
import json_cases
import pytest
import table_cases
import text_cases
from data_case import Case, examples, numbered

from llmft.errors import DataError

CASES = numbered(case for source in (text_cases, json_cases, cell_cases, table_cases) for case in source.cases())


def check(case: Case) -> None:
    """Assert that what has to come of the case does, in the current folder, where its files are."""
    if case.rows is None:
        with pytest.raises(DataError) as caught:
            examples(case.settings)
        said = str(caught.value)
        assert said.startswith(case.where), said
        assert said[len(case.where) :][:1] in ":," or case.where.endswith(":"), said
        assert case.said in said, said
        assert said.endswith(".")
        return
    found = examples(case.settings)
    assert [row for row, _ in found] == case.rows
    if case.lines is not None:
        assert [place for _, place in found] == [f"{next(iter(case.files))}:{line}" for line in case.lines]


def test_there_are_enough():
    assert len(CASES) >= 500


@pytest.mark.parametrize("family", sorted({case.name.partition(":")[0] for case in CASES}))
def test_files_by_hand(tmp_path, monkeypatch, family):
    wrong = []
    for number, case in enumerate(each for each in CASES if each.name.partition(":")[0] == family):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        case.write(folder)
        try:
            check(case)
        except BaseException as error:  # all of them at once: one fault often shows in several
            wrong.append(f"{case.name}: {type(error).__name__}: {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)


def spread(count: int, start: int) -> list[Case]:
    """Cases from all over the list, some of each outcome."""
    good = [case for case in CASES if case.rows]
    bad = [case for case in CASES if not case.rows]
    return [*bad[start :: len(bad) // count][: count - count // 5], *good[start :: 5 * len(good) // count][: count // 5]]


@pytest.mark.parametrize(
    "case",
    [*spread(5, 0), *(pytest.param(each, marks=pytest.mark.torture) for each in spread(25, 1))],
    ids=lambda case: case.name,
)
def test_the_whole_command(tmp_path, tiny, case):
    """Exit 0 or 4, with the place, and never a traceback."""
    case.write(tmp_path)
    data = case.settings["train"]
    files = (
        [f"task.data.train.{column}={name}" for column, name in data.items()]
        if isinstance(data, dict)
        else [f"task.data.train=[{','.join(data)}]"]
    )
    if "columns" in case.data:
        files.append(f"task.data.columns=[{','.join(case.data['columns'])}]")
    words = f"task=summarization model.name={tiny / 'gpt2'} task.data.holdout=0 task.source={{a}} task.target={{b}}".split()
    words += ["training.max_steps=1", "training.baseline=false", "hardware.threads=1", "output_dir=run"]
    code, said = crash_lab.run(["train", *words, *files], tmp_path, {"LLMFT_CACHE": str(tmp_path / "cache")})
    assert (code, "Traceback" in said) == (4 if case.rows is None else 0, False), said
    if case.rows is None:
        assert case.where in said
        assert " ".join(case.said.split()) in " ".join(said.split())


def test_rows_that_are_left_out_are_listed(tmp_path, tiny):
    """One that cannot be read, one without its target, one of another kind: each in data.json with its line and what is wrong."""
    good = [b'{"a": "x", "b": "y"}'] * 4
    bad = [b'{"a": "x", "b": NaN}', b'{"a": "x"}', b'{"a": 3.0, "b": "y"}']
    (tmp_path / "t.jsonl").write_bytes(b"\n".join([*good, *bad, *good]))
    words = ["train", "task=summarization", f"model.name={tiny / 'gpt2'}", "task.data.train=t.jsonl", "task.data.holdout=0"]
    words += ["task.source={a}", "task.target={b}", "training.max_steps=1", "training.baseline=false", "hardware.threads=1"]
    for allowed, code in ((2, 4), (3, 0)):
        folder = tmp_path / f"run{allowed}"
        found, said = crash_lab.run([*words, f"output_dir={folder}", f"task.data.max_bad_rows={allowed}"], tmp_path)
        assert found == code, said
    assert "3 train rows are left out (task.data.max_bad_rows=3), the first at t.jsonl:5: NaN is not a JSON number" in " ".join(
        said.split()
    )
    listed = json.loads((folder / "data.json").read_text())["sources"]["train"]["bad_rows"]
    assert [row["where"] for row in listed] == ["t.jsonl:5", "t.jsonl:6", "t.jsonl:7"]
    assert [row["reason"].partition(";")[0] for row in listed] == [
        "NaN is not a JSON number",
        "no column 'b'",
        "column 'a' is a number (3.0), but text in t.jsonl:1",
    ]
    assert json.loads((folder / "plan.json").read_text())["train_rows"] == 8
