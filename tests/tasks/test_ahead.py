"""Rows that are tokenised together, ahead of their turn, become what each of them becomes alone."""

import numpy as np
import pytest

from llmft.config.schema import ControlTokens as Reading
from llmft.config.schema import Formulation as Form
from llmft.config.schema import Truncation
from llmft.data.example import DocumentExample, LabelExample, Message, SpanExample, TextExample

TEXTS = [
    "The quick brown fox",
    "",
    " ",
    "東京都は日本の首都です。",
    "\U0001f98a e\u0301",
    "a<|im_end|>b</s>",
    "dog " * 60,
    "dog " * 900,
]
TALK = (Message("user", "Hi <|im_end|>"), Message("assistant", "Yes."), Message("user", "Why?"))


def text_rows(context):
    rows = [TextExample(str(n), text, (TEXTS[n - 3],), "f:1", text[::-1] if context else None) for n, text in enumerate(TEXTS)]
    return rows if context else [*rows, TextExample("talk", TALK, ("No.",), "f:9"), *rows[:2]]


def label_rows(context):
    return [LabelExample(str(n), text, TEXTS[n - 2] if context else None, ("glad",), "f:1") for n, text in enumerate(TEXTS)]


def span_rows():
    rows = [SpanExample(str(n), text[:90], TEXTS[n - 1], (), (), "f:1") for n, text in enumerate(TEXTS)]
    return [row for row in rows if row.question.strip() and row.context.strip()]


@pytest.mark.parametrize(
    ("name", "formulation", "rows", "settings"),
    [
        *((name, Form.text_to_text, text_rows(False), {}) for name in ("llama", "gpt2", "t5", "bart", "marian")),
        *((name, Form.text_to_text, text_rows(True), {"context": "{c}"}) for name in ("llama", "gpt2", "t5")),
        ("llama", Form.text_to_text, text_rows(False), {"control_tokens": Reading.token, "max_target_tokens": 9}),
        ("llama", Form.text_to_text, text_rows(False), {"prompt": "<|im_start|> {source}", "system": "Be brief."}),
        ("gpt2", Form.text_to_text, text_rows(False), {"truncation": Truncation.start}),
        *(
            (name, Form.language_model, [DocumentExample(str(n), text, "f:1") for n, text in enumerate(TEXTS)], {})
            for name in ("gpt2", "bert")
        ),
        *((name, Form.label, label_rows(False), {"labels": ["glad", "sad"]}) for name in ("bert", "gpt2", "t5")),
        *(
            (name, Form.label, label_rows(True), {"labels": ["glad", "sad"], "context": "{c}"})
            for name in ("bert", "roberta", "llama")
        ),
        ("bert", Form.span, span_rows(), {"context": "{c}", "no_answer": True}),
    ],
)
def test_rows_encoded_together_are_as_rows_encoded_alone(open_learner, name, formulation, rows, settings):
    given = {"source": "{s}", "max_source_tokens": 50, **settings}
    alone, together = (open_learner(name, formulation=formulation, **given) for _ in range(2))
    documents = [list(alone.encode(row)) for row in rows]
    together.ahead(rows)
    for expected, row in zip(documents, rows, strict=True):
        found = list(together.encode(row))
        assert [vars_of(each) for each in found] == [vars_of(each) for each in expected]
    assert any(documents)


def vars_of(document):
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(document).items()}


@pytest.mark.parametrize(
    ("name", "formulation"), [("llama", Form.text_to_text), ("t5", Form.text_to_text), ("gpt2", Form.language_model)]
)
def test_rows_encoded_together_are_tokenised_together(open_learner, monkeypatch, name, formulation):
    learner = open_learner(name, formulation=formulation, max_source_tokens=200)
    documents = formulation is Form.language_model
    rows = [DocumentExample("", f"fox {n}", "") if documents else TextExample("", f"fox {n}", (f"{n}",), "") for n in range(20)]
    made, backend = [], type(learner.pretrained.tokenizer)._encode_plus
    monkeypatch.setattr(
        type(learner.pretrained.tokenizer),
        "_encode_plus",
        lambda self, text, *a, **k: made.append(text) or backend(self, text, *a, **k),
    )
    learner.ahead(rows)
    assert sum(map(len, made)) == sum(len(row.targets) + 1 for row in rows)
    assert all(list(learner.encode(row)) for row in rows)
    assert len(made) <= 2  # one call for all that is read, one for what is written
