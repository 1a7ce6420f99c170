"""One made-up run, as the reports see it."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest

from llmft.config.schema import AdapterKind, TrainRun
from llmft.reports.results import Difference, Finding, GateResult, Metric, Objective, Results, TrainSummary

ROUGE = "rouge-score 0.1.2, use_stemmer, bootstrap 1000"


def _metrics(rouge1: float, rouge_l: float, loss: float) -> dict[str, Metric]:
    return {
        "rouge1": Metric(rouge1, rouge1 - 1.5, rouge1 + 1.5, 96, ROUGE),
        "rougeL": Metric(rouge_l, rouge_l - 1.25, rouge_l + 1.25, 96, ROUGE, parts={"precision": 30.5}),
        "loss": Metric(loss, None, None, 96, "mean per target token", higher_is_better=False),
    }


@pytest.fixture
def sample():
    """results, config, plan, train_rows, validation_rows, predictions, untuned, commands of a summarization run."""
    train_rows = [
        {
            "kind": "train",
            "step": step,
            "epoch": step / 100,
            "loss": 2.2 * math.exp(-step / 80) + 1.2 + 0.08 * math.sin(step),
            "lr": 2e-4 * min(1.0, step / 10) * (1 - step / 320),
            "grad_norm": 0.8 + 3 * math.exp(-step / 20) + 0.2 * math.sin(3 * step),
            "tokens": 4000 + 300 * (step % 3),
            "seconds": 1.0 + 0.02 * (step % 5),
            "memory_bytes": 2 << 30,
        }
        for step in range(1, 301)
    ]
    validation_rows = [
        {"kind": "validation", "step": step, "loss": loss} for step, loss in ((0, 3.31), (100, 1.92), (200, 1.61), (300, 1.60))
    ]
    checks = [Finding("warn", "6 of 96 sources were <cut>."), Finding("ok", "Better than the untuned model: rougeL by +12.80.")]
    results = Results(
        task="summarization",
        task_version=1,
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        split="test",
        n=96,
        metrics=_metrics(38.4, 31.2, 1.6),
        before=_metrics(24.1, 18.4, 3.31),
        paired={"rouge1": Difference(14.3, 12.9, 15.6, 0.0, 96), "rougeL": Difference(12.8, 11.6, 14.0, 0.0002, 96)},
        baselines={"lead-1": {"rouge1": Metric(26.0, 24.0, 28.0, 96, ROUGE), "rougeL": Metric(24.0, 22.0, 26.0, 96, ROUGE)}},
        objective=Objective("rougeL", 31.2, True),
        gates=[GateResult("rougeL", "min", 30.0, 31.2, True)],
        train=TrainSummary(300, 3.0, 2400, 1290000, 48000, "tokens", 312.5, 4128.0, 0, 300, 1.21, 1.60, 3.31),
        memory={"peak_bytes": 2 << 30},
        fingerprints={"config": "ab12", "data": "cd34", "model": "ef56"},
        checks=checks,
        seconds=401.0,
        finished="2026-11-23T10:15:00+00:00",
    )
    run = TrainRun()
    run.task.name, run.task.prompt = "summarization", "Summarize the following text in one sentence.\n\n{source}"
    run.task.data.train = ["/home/someone/secret/news.jsonl"]
    run.model.name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    run.adapter.name = AdapterKind.lora
    config = json.loads(json.dumps(dataclasses.asdict(run), default=lambda each: each.value))
    plan = {"parameters": 134515008, "trained": 4884480, "steps": 300, "peak_memory_bytes": 2 << 30, "tokens": {"longest": 512}}
    sources = [
        "The council met on Tuesday to debate the new harbour bridge and voted in favour. " * 4,
        "<script>alert(1)</script> & more",
    ]
    predictions, untuned = [], []
    for number in range(40):
        row = {
            "id": f"news.{number}",
            "source": sources[number % 2],
            "prediction": ["Council approves harbour bridge.", "A </td> tag\nand a second line"][number % 2],
            "references": ["The council approved the bridge."],
            "scores": {"rougeL": 61.5},
            "finish_reason": "stop",
        }
        predictions.append(row)
        untuned.append(row | {"prediction": "Sure! Here is a summary of the text: the council met.", "finish_reason": "length"})
    commands = ["llmft train task=summarization seed=42", "llmft eval run=outputs/20261123-101500-a1f3-summarization-smollm2"]
    return SimpleNamespace(
        results=results,
        config=config,
        plan=plan,
        train_rows=train_rows,
        validation_rows=validation_rows,
        predictions=predictions,
        untuned=untuned,
        commands=commands,
    )
