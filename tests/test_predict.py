"""llmft predict through the command line: file types, order, streams, going on where it stopped."""

import csv
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmft import predict as predict_module
from llmft.cli.main import main
from llmft.tasks.learn.text_decoder import TextDecoder

TEXTS = ["The cat sleeps.", "A list, of names = {1}", "数字 and words", "a", "the quick brown fox " * 6, "Return the element."]


@pytest.fixture
def predict(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command for a plain model."""
    monkeypatch.chdir(tmp_path)
    fixed = ["generation.max_new_tokens=6", "hardware.precision=fp32", "hardware.threads=1"]
    return ["predict", "task=summarization", f"model.name={tiny / 'llama'}", *fixed]


def expected(folder: Path, texts: list[str]) -> list[str]:
    """What plain transformers writes, one prompt at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for text in texts:
        messages = [{"role": "user", "content": f"Summarize the following text in one sentence.\n\n{text}"}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        output = model.generate(**ids, max_new_tokens=6, do_sample=False)
        found.append(tokenizer.decode(output[0, ids.input_ids.shape[1] :], skip_special_tokens=True).strip())
    return found


def write_jsonl(path: Path) -> None:
    rows = [{"id": f"row-{number}", "document": text} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_jsonl_keeps_order_and_ids_and_equals_plain_transformers(predict: list[str], tiny: Path) -> None:
    write_jsonl(Path("in.jsonl"))
    assert main([*predict, "input=in.jsonl", "output=out.jsonl", "generation.batch_size=2"]) == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"row-{number}" for number in range(len(TEXTS))]
    assert [row["prediction"] for row in rows] == expected(tiny / "llama", TEXTS)
    assert list(Path().glob(".*partial")) == []


def test_csv_and_txt(predict: list[str], tiny: Path) -> None:
    with open("in.csv", "w", newline="") as file:
        csv.writer(file).writerows([["document"], *([text] for text in TEXTS)])
    Path("in.txt").write_text("".join(text + "\n" for text in TEXTS))
    assert main([*predict, "input=in.csv", "output=out.csv"]) == 0
    assert main([*predict, "input=in.txt", "output=out.txt"]) == 0
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = expected(tiny / "llama", TEXTS)
    assert [row["prediction"] for row in rows] == wanted
    assert [row["id"] for row in rows] == [str(number) for number in range(len(TEXTS))]
    assert Path("out.txt").read_text().splitlines() == [" ".join(text.split()) for text in wanted]


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_stdin_to_stdout(
    kind: str, predict: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = TEXTS if kind == "text" else [json.dumps({"id": f"n{i}", "document": text}) for i, text in enumerate(TEXTS)]
    given = io.TextIOWrapper(io.BytesIO("".join(line + "\n" for line in lines).encode()))
    monkeypatch.setattr(sys, "stdin", given)
    assert main(predict) == 0
    out = capsys.readouterr().out.splitlines()
    wanted = expected(tiny / "llama", TEXTS)
    if kind == "text":
        assert out == [" ".join(text.split()) for text in wanted]
    else:
        rows = [json.loads(line) for line in out]
        assert [(row["id"], row["prediction"]) for row in rows] == [(f"n{i}", text) for i, text in enumerate(wanted)]


def test_a_stopped_prediction_goes_on(
    predict: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(Path("in.jsonl"))
    command = [*predict, "input=in.jsonl", "output=out.jsonl", "generation.batch_size=1"]  # windows of four
    calls: list[int] = []
    original = TextDecoder.predict

    def counted(self, examples):  # type: ignore[no-untyped-def]
        calls.append(len(examples))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, examples)

    monkeypatch.setattr(TextDecoder, "predict", counted)
    assert main(command) == 75
    assert not Path("out.jsonl").exists()
    assert main(command) == 0
    assert "going on after the 4" in capsys.readouterr().err
    assert calls == [4, 2, 2]
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == expected(tiny / "llama", TEXTS)


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        (["input=none.jsonl", "output=o.jsonl"], 4, "input=none.jsonl: there is no such file"),
        (["input=in.jsonl", "output=o.parquet"], 2, "unknown ending '.parquet'"),
        (["input=in.jsonl", "output=in.jsonl"], 2, "the file is there already"),
        (["input=in.jsonl"], 2, "output is needed with a plain model"),
        (["input=in.jsonl", "output=o.jsonl", "task.source={title}"], 4, "in.jsonl:1: no column 'title'"),
        (["input=in.txt", "output=o.jsonl", "task.source={a} {b}"], 2, "task.source reads the columns a, b"),
        (["run=nothing", "input=in.jsonl"], 2, "no run directory"),
    ],
)
def test_mistakes(settings: list[str], code: int, said: str, predict: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(Path("in.jsonl"))
    Path("in.txt").write_text("one\n")
    assert main([*predict, *settings]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_every_line_of_a_text_gets_its_line(predict: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.txt").write_text("one\n\n  \nfour\n")
    assert main([*predict, "input=in.txt", "output=out.jsonl"]) == 0
    assert [json.loads(line)["id"] for line in Path("out.jsonl").read_text().splitlines()] == ["0", "1", "2", "3"]
    assert main([*predict, "input=in.txt", "output=out.txt"]) == 0
    assert Path("out.txt").read_text().count("\n") == 4


def test_stdin_is_not_taken_for_what_it_was_before(predict: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(text: str, output: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main([*predict, "input=-", f"output={output}"]) == 0

    whole = predict_module.predict_examples
    monkeypatch.setattr(predict_module, "predict_examples", lambda *words: (whole(*words), sys.exit(9)))
    with pytest.raises(SystemExit):
        answer("first\n", "out.jsonl")
    assert len(list(Path().glob(".out.jsonl.*.partial"))) == 1
    monkeypatch.setattr(predict_module, "predict_examples", whole)
    answer("second, and longer\n", "out.jsonl")
    answer("second, and longer\n", "again.jsonl")
    assert Path("out.jsonl").read_text() == Path("again.jsonl").read_text()


def test_what_was_begun_with_other_settings_is_not_taken_over(predict: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(Path("in.jsonl"))
    whole = predict_module.predict_examples
    monkeypatch.setattr(predict_module, "predict_examples", lambda *words: (whole(*words), sys.exit(9)))
    with pytest.raises(SystemExit):
        main([*predict, "input=in.jsonl", "output=out.jsonl"])
    monkeypatch.setattr(predict_module, "predict_examples", whole)
    for output in ("out.jsonl", "again.jsonl"):  # the same prompt around another column
        assert main([*predict, "task.source={id}", "input=in.jsonl", f"output={output}"]) == 0
    assert Path("out.jsonl").read_text() == Path("again.jsonl").read_text()


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\rx", "'\rx"),
        ("  =1", "'  =1"),
        ("\uff1d1", "'\uff1d1"),  # full-width, which some spreadsheets read as =
        ("-", "'-"),
        ("-5", "-5"),
        ("+3.5e-2", "+3.5e-2"),
        ("-1,234.5 %", "-1,234.5 %"),
        ("a=1", "a=1"),
        ("", ""),
        (-5, -5),
        (["=1"], '["=1"]'),
    ],
)
def test_no_cell_is_a_formula(text, cell):
    assert predict_module.cell(text) == cell
    assert predict_module.rendered([{"id": "=a", "prediction": text}], ".csv").startswith("id,prediction\r\n'=a,")
