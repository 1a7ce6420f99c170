"""SQuAD, Alpaca and conversations, in each of the forms they come in."""

import json

import pytest

from llmft.config.schema import Data
from llmft.data.dataset import open_splits
from llmft.data.example import Message
from llmft.data.shapes import alpaca, conversation, squad
from llmft.errors import DataError

CONTEXT = "The cat sat. The cat ran."
FLAT = {"id": "a", "title": "Cats", "context": CONTEXT, "question": "Who ran?"}
CAT = {"text": ["The cat", "cat"], "answer_start": [13, 17]}


def test_flat_row():
    assert squad({**FLAT, "answers": CAT, "more": 1}) == [{**FLAT, "answers": CAT, "is_impossible": False}]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([{"text": "The cat", "answer_start": 13}, {"text": "cat", "answer_start": 17}], CAT),
        ({"text": "cat", "answer_start": 4}, {"text": ["cat"], "answer_start": [4]}),
        ({"text": ["cat", "The cat"]}, {"text": ["cat", "The cat"]}),
        ([{"text": "cat"}], {"text": ["cat"]}),
        ("cat", {"text": ["cat"]}),
        (["cat", "The cat"], {"text": ["cat", "The cat"]}),
    ],
)
def test_answers_in_each_form(answers, expected):
    [row] = squad({**FLAT, "answers": answers})
    assert (row["answers"], row["is_impossible"]) == (expected, False)


def test_a_column_answer():
    assert squad({**FLAT, "answer": "cat"})[0]["answers"] == {"text": ["cat"]}


@pytest.mark.parametrize("answers", [None, [], {}, {"text": [], "answer_start": []}])
def test_no_answer(answers):
    [row] = squad({**FLAT, "answers": answers})
    assert (row["answers"], row["is_impossible"]) == ({"text": [], "answer_start": []}, True)


def test_no_answer_in_tables_and_without_the_column():
    for row in ({**FLAT, "answers": ""}, {**FLAT, "answer": ""}, FLAT):
        [made] = squad(row)
        assert (made["answers"]["text"], made["is_impossible"]) == ([], True)


ARTICLES = [
    {"title": "Cats", "paragraphs": [
        {"context": CONTEXT, "qas": [
            {"id": "a", "question": "Who ran?", "answers": [{"text": "cat", "answer_start": 17}]},
            {"id": "b", "question": "Who flew?", "answers": [], "is_impossible": True,
             "plausible_answers": [{"text": "The cat", "answer_start": 0}]},
        ]},
        {"context": "Another.", "qas": [{"id": 3, "question": "What?", "answers": [{"text": "Another", "answer_start": 0}]}]},
    ]},
    {"title": "None", "paragraphs": []},
]  # fmt: skip
MADE = [
    {"id": "a", "title": "Cats", "context": CONTEXT, "question": "Who ran?",
     "answers": {"text": ["cat"], "answer_start": [17]}, "is_impossible": False},
    {"id": "b", "title": "Cats", "context": CONTEXT, "question": "Who flew?",
     "answers": {"text": [], "answer_start": []}, "is_impossible": True},
    {"id": 3, "title": "Cats", "context": "Another.", "question": "What?",
     "answers": {"text": ["Another"], "answer_start": [0]}, "is_impossible": False},
]  # fmt: skip


def test_nested():
    assert squad(ARTICLES[0]) == MADE
    assert squad({"version": "v2.0", "data": ARTICLES}) == MADE
    assert squad({"title": "Cats", **ARTICLES[0]["paragraphs"][1]}) == MADE[2:]
    assert squad(ARTICLES[1]) == []
    assert squad(ARTICLES[0]["paragraphs"][1])[0]["title"] == ""


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_from_a_file(tmp_path, name, indent):
    path = tmp_path / name
    path.write_text(json.dumps({"version": "v2.0", "data": ARTICLES}, indent=indent))
    found = list(open_splits(Data(train=[str(path)], holdout=0.0), None, squad)["train"])
    assert [row.fields for row in found] == MADE
    start = "data[0]" if name == "a.json" else "1"
    assert [row.where for row in found] == [f"{path}:{start}, id {name}" for name in ("a", "b", 3)]


# Scripts where bytes, code points, UTF-16 units and letters as people see them differ; the Arabic and the Devanagari text
# change length under NFKC and NFC, the last one holds characters beyond the basic plane.
OFFSETS = [
    ("arabic", "\ufeffكَتَبَ ﷺ الولدُ الدرسَ في المدرسة", "الدرسَ"),
    ("chinese", "黑豹队的防守只丢了 308分,在联赛中排名第六。", "308分"),
    ("thai", "กรุงเทพมหานครเป็นเมืองหลวงที่ใหญ่ที่สุด", "เมืองหลวง"),
    ("hindi", "क़लम और किताब मेज़ पर हैं", "किताब"),
    ("emoji", "\U0001d518nter 👩‍👩‍👧 dem Cafe\u0301 liegt Straße", "Cafe\u0301"),
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "b.jsonl"])
@pytest.mark.parametrize(("context", "answer"), [case[1:] for case in OFFSETS], ids=[case[0] for case in OFFSETS])
def test_answer_start_survives_reading(tmp_path, context, answer, name):
    start = len(context.encode("utf-32-le").partition(answer.encode("utf-32-le"))[0]) // 4
    row = {"context": context, "question": "?", "answers": {"text": [answer], "answer_start": [start]}}
    path = tmp_path / name
    path.write_text(json.dumps([row] if name == "a.json" else row, ensure_ascii=name == "b.jsonl"), encoding="utf-8")
    [found] = open_splits(Data(train=[str(path)], holdout=0.0), None, squad)["train"]
    assert found.fields["context"] == context
    [place] = found.fields["answers"]["answer_start"]
    assert found.fields["context"][place : place + len(answer)] == answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": None, "answers": CAT}, "context is None; expected text."),
        ({"question": 3, "answers": CAT}, "question is 3; expected text."),
        ({"answers": {"text": ["cat"], "answer_start": [1, 2]}}, "answer_start is [1, 2] for 1 answers;"),
        ({"answers": {"text": ["cat"], "answer_start": [-1]}}, "answer_start is [-1] for 1 answers;"),
        ({"answers": {"text": ["cat"], "answer_start": ["4"]}}, "answer_start is ['4'] for 1 answers;"),
        ({"answers": {"text": [], "answer_start": [4]}}, "answer_start is [4] for 0 answers;"),
        ({"answers": [{"text": "cat"}, {"text": "The", "answer_start": 0}]}, "answer_start is [0] for 2 answers;"),
        ({"answers": ["cat", ""]}, "answers has ['cat', '']; expected texts."),
        ({"answers": [4]}, "answers has [4]; expected texts."),
        ({"answers": CAT, "is_impossible": True}, "is_impossible is set, but answers has ['The cat', 'cat'];"),
        ({"qas": "x"}, "qas is 'x'; expected a list of objects."),
        ({"paragraphs": [[1]]}, "paragraphs is [[1]]; expected a list of objects."),
    ],
)
def test_what_is_not_squad(change, message):
    with pytest.raises(DataError) as caught:
        squad(FLAT | change)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("Fix the data.")


def test_another_kind_of_row():
    with pytest.raises(DataError) as caught:
        squad({"article": "x", "summary": "y"})
    assert str(caught.value) == "no 'context'; found title, article, summary. Fix the data, or leave task.row out."


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, [{"source": "Add.\n\n1 2", "target": "3"}]),
        ({"id": 7, "instruction": "Greet.", "input": "", "output": "Hi"}, [{"id": 7, "source": "Greet.", "target": "Hi"}]),
        ({"instruction": "Greet.", "input": None, "output": ""}, [{"source": "Greet.", "target": ""}]),
        ({"instruction": "Greet.", "output": "Hi"}, [{"source": "Greet.", "target": "Hi"}]),
        (
            {"id": "s1", "instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": " ", "output": "0"}]},
            [{"id": "s1-1", "source": "Add.\n\n1 2", "target": "3"}, {"id": "s1-2", "source": "Add.", "target": "0"}],
        ),
        (
            {"id": "s2", "instruction": "Greet.", "instances": [{"input": "", "output": "Hi"}]},
            [{"id": "s2", "source": "Greet.", "target": "Hi"}],
        ),
        ({"instruction": "Greet.", "instances": []}, []),
    ],
)
def test_alpaca(row, made):
    assert alpaca(row) == made


def test_alpaca_that_is_to_be_answered():
    assert alpaca({"instruction": "Name it.", "input": "X"}) == [{"source": "Name it.\n\nX"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input": "x", "output": "y"}, "no 'instruction'; found input, output."),
        ({"instruction": "x", "output": ["y"]}, "output is ['y']; expected text."),
        ({"instruction": "x", "instances": [1]}, "instances is [1]; expected a list of objects."),
        ({"instruction": "x", "input": 3, "output": "y"}, "input is 3; expected text."),
    ],
)
def test_what_is_not_alpaca(row, message):
    with pytest.raises(DataError) as caught:
        alpaca(row)
    assert str(caught.value).startswith(message)


TURNS = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello"))


def test_conversations():
    assert conversation([{"role": t.role, "content": t.content, "name": "x"} for t in TURNS], "f:1") == TURNS
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    assert conversation([{"from": names[t.role], "value": t.content} for t in TURNS], "f:1") == TURNS
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    assert conversation([{"role": "user", "content": parts}], "f:1") == TURNS[1:2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Hi", "f:3: the conversation is 'Hi'; expected a list of turns. Fix the data."),
        ([], "f:3: the conversation is []; expected a list of turns. Fix the data."),
        (["Hi"], "f:3: turn 1 is 'Hi'; expected role and content, or from and value. Fix the data."),
        ([{"role": "user"}], "f:3: turn 1 is {'role': 'user'}; expected role and content, or from and value. Fix the data."),
    ],
)
def test_what_is_no_conversation(value, message):
    with pytest.raises(DataError) as caught:
        conversation(value, "f:3")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("turn", "part"),
    [
        ({"role": "tool", "content": "x"}, "f:3: turn 2 is by 'tool'; expected one of system, developer, user"),
        ({"from": None, "value": "x"}, "f:3: turn 2 is by None; "),
        ({"role": "assistant", "content": None}, "f:3: turn 2 says None; expected text."),
        ({"role": "user", "content": [{"type": "image_url"}]}, "f:3: turn 2 says [{'type': 'image_url'}]; expected text."),
        ({"role": "user", "content": []}, "f:3: turn 2 says []; expected text."),
    ],
)
def test_turns_that_cannot_be_read(turn, part):
    with pytest.raises(DataError) as caught:
        conversation([{"role": "user", "content": "Hi"}, turn], "f:3")
    assert str(caught.value).startswith(part)
