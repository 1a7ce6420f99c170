"""-m: every job reaches the work with its own settings and directory, and a failing one does not end the sweep."""

import json
from pathlib import Path

import pytest

from llmft.errors import DataError, Stopped


def sweep_dir():
    (folder,) = Path("outputs").glob("*-sweep")
    return folder


def test_jobs(llmft):
    assert llmft("train", "-m", "optimizer.lr=1e-4,2e-4", "adapter.r=4,8", "task.source={a},{b}", "gate.min.rougeL=3") == 0
    found = [(run.optimizer.lr, run.adapter.r, run.task.source) for run in llmft.runs]
    assert found == [(lr, r, source) for lr in (1e-4, 2e-4) for r in (4, 8) for source in ("{a}", "{b}")]
    assert [run.output_dir for run in llmft.runs] == [str(sweep_dir() / f"{number:03}") for number in range(8)]
    assert all(run.gate.min == {"rougeL": 3.0} for run in llmft.runs)
    assert llmft.commands[0][:3] == ["llmft", "train", "-m"]
    sweep = json.loads((sweep_dir() / "sweep.json").read_text(encoding="utf-8"))
    assert sweep["complete"] is True
    assert len(sweep["rows"]) == 8


def test_texts_reach_every_job(llmft):
    text = "Summarize 'this', please: {source}\n要約"
    assert llmft("train", "-m", f"task.prompt={text}", "seed=1,2") == 0
    assert [run.task.prompt for run in llmft.runs] == [text, text]


def test_groups(llmft):
    assert llmft("train", "-m", "model=gpt2,t5_small") == 0
    assert [run.model.name for run in llmft.runs] == ["openai-community/gpt2", "google-t5/t5-small"]


def test_a_failing_job_does_not_end_the_sweep(llmft):
    llmft.result = DataError("news.jsonl: not there")
    assert llmft("train", "-m", "seed=1,2") == 1
    assert len(llmft.runs) == 2
    assert llmft.err.count("news.jsonl: not there") >= 2
    assert "Traceback" not in llmft.err


def test_a_signal_ends_the_sweep(llmft):
    llmft.result = Stopped(15)
    assert llmft("train", "-m", "seed=1,2") == 75
    assert len(llmft.runs) == 1


@pytest.mark.parametrize("words", [("seed=1,x",), ("model=gpt2,gpt3",), ("seeed=1,2",)])
def test_a_mistake_starts_no_sweep(llmft, tmp_path, words):
    assert llmft("train", "-m", *words) == 2
    assert list(tmp_path.iterdir()) == []


def test_eval_of_several_splits(llmft):
    assert llmft("eval", "-m", "task=summarization", "model=gpt2", "split=validation,test") == 0
    assert [run.split.name for run in llmft.runs] == ["validation", "test"]
    assert [run.output for run in llmft.runs] == [str(sweep_dir() / name) for name in ("000", "001")]


def test_predictions_of_a_sweep_are_files_in_the_folders_of_the_jobs(llmft):
    assert llmft("predict", "-m", "task=summarization", "model=gpt2", "input=x.txt", "generation=greedy,beam4") == 0
    assert [run.output for run in llmft.runs] == [str(sweep_dir() / name / "predictions.jsonl") for name in ("000", "001")]


@pytest.mark.parametrize(("command", "place"), [("train", "output_dir"), ("eval", "output"), ("predict", "output")])
def test_one_place_for_all_jobs_is_refused(llmft, tmp_path, command, place):
    assert llmft(command, "-m", "seed=1,2", f"{place}=here") == 2
    assert llmft.err.startswith(f"error: {place}=here: each job of a sweep has a folder of its own. Leave it out;")
    assert llmft.runs == []
    assert list(tmp_path.iterdir()) == []
