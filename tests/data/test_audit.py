"""The audit: every kind of trouble counted by hand."""

import random
import re
import tracemalloc

from llmft.data.audit import Audit, audit, sentences
from llmft.data.example import DocumentExample, LabelExample, Message, SpanExample, TextExample


def example(where, source, *targets):
    return TextExample("", source, targets, where)


SPLITS = {
    "train": [
        example("t:1", "A  cat\nsat", "x"),
        example("t:2", "a cat sat", "X "),  # as t:1, but for case and space
        example("t:3", "a cat sat", "y"),  # its source only
        example("t:4", "", "z"),
        example("t:5", "  ", "z"),
        example("t:6", "a dog", " "),
        example("t:7", "\ufb01ne", "z"),  # a ligature
    ],
    "validation": [example("v:1", "A CAT SAT", "other"), example("v:2", "a bird", "x"), example("v:3", "", "z")],
    "test": [
        example("e:1", "a cat sat", "x"),
        example("e:2", "a cat sat", "x"),
        example("e:3", (Message("user", "Fine"),), "z"),
        example("e:4", "new"),
    ],
}


def test_counts():
    assert audit({split: iter(rows) for split, rows in SPLITS.items()}) == {
        "rows": {"train": 7, "validation": 3, "test": 4},
        "empty_sources": {"train": 2, "validation": 1, "test": 0},
        "empty_targets": {"train": 1, "validation": 0, "test": 1},
        "control_tokens": {"train": 0, "validation": 0, "test": 0},
        "duplicates": 1,
        "same_source": 1,
        "overlap": {"validation": 1, "test": 3},
        "whole_overlap": {"validation": 0, "test": 3},
        "overlap_rows": {"validation": [["v:1", "t:1"]], "test": [["e:1", "t:1"], ["e:2", "t:1"], ["e:3", "t:7"]]},
    }


def test_sentences():
    assert sentences(audit(SPLITS)) == [
        "7 train, 3 validation, 4 test rows.",
        "2 of 7 train rows have an empty source.",
        "1 of 3 validation rows have an empty source.",
        "1 of 7 train rows have an empty target.",
        "1 of 4 test rows have an empty target.",
        "1 of 7 training rows repeat one before them.",
        "1 of 7 training rows have the source of one before, with another target.",
        "1 of 3 validation sources also stand in training (0 with the same target), such as v:1: scores on them are memory.",
        "3 of 4 test sources also stand in training (3 with the same target), such as e:1: scores on them are memory.",
    ]


def test_clean_data_gets_one_sentence():
    splits = {"train": [example("t:1", "a", "b")], "test": [example("e:1", "c", "b")]}
    assert sentences(audit(splits)) == ["1 train, 1 test rows."]


def test_only_evaluation_rows():
    found = audit({"test": [example("e:1", "a", "b")]})
    assert (found["rows"], found["overlap"], found["duplicates"]) == ({"test": 1}, {"test": 0}, 0)


def test_the_list_is_cut_but_not_the_count():
    rows = [example(f"r:{n}", f"text {n}", "y") for n in range(150)]
    found = audit({"train": rows, "test": rows})
    assert (found["overlap"]["test"], len(found["overlap_rows"]["test"])) == (150, 100)


def test_what_has_no_text_to_learn_lacks_none():
    """A document, a question that its context does not answer, and a row with none of several labels."""
    rows = [
        DocumentExample("1", "a fox", "t:1"),
        SpanExample("2", "who?", "a dog", (), (), "t:2"),
        LabelExample("3", "a cat", None, (), "t:3"),
    ]
    assert audit({"train": rows})["empty_targets"] == {"train": 0}


def test_control_tokens_are_counted():
    rows = [example("t:1", "a</s>b"), example("t:2", "a"), example("t:3", "b", "</s>")]
    found = audit({"train": rows}, re.compile("</s>"))
    assert found["control_tokens"] == {"train": 2}
    assert "2 of 3 train rows hold control tokens of the model's; task.control_tokens says how they are read." in sentences(
        found
    )


def test_rows_are_compared_as_a_set_would():
    """Counted again the long way: pairs are kept as they are, and looked up among those before."""
    chance = random.Random(3)
    rows = [example(f"t:{n}", chance.choice("abcde") * 2, chance.choice(["x", "y", "\u00df", "SS"])) for n in range(200)]
    sources, wholes, duplicates, same_source = set(), set(), 0, 0
    for row in rows:
        whole = (row.source, row.targets[0].casefold())
        duplicates += whole in wholes
        same_source += row.source in sources and whole not in wholes
        sources.add(row.source)
        wholes.add(whole)
    found = audit({"train": rows})
    assert (found["duplicates"], found["same_source"]) == (duplicates, same_source)
    assert duplicates > same_source > 0


def test_a_row_costs_sixteen_bytes():
    auditor = Audit(["train"])
    tracemalloc.start()
    for _ in auditor.watch("train", (example("", str(number), "x") for number in range(20_000))):
        pass
    auditor.found()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 25 * 20_000 + 100_000
