"""From a source text to a prompt: exact texts and exact ids."""

import datetime

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from llmft.config.schema import Task
from llmft.data.example import Message
from llmft.data.prompt import Prompt
from llmft.errors import ModelError

CJK = "東京都は日本の首都です。これは長い文章です。"
DATED = (
    "{{ '<|im_start|>system\\nToday is ' + strftime_now('%d %b %Y') + '<|im_end|>\\n' }}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture
def chat(tiny):
    """Tokenizer with a chat template, as SmolLM2 and Qwen have it; 1 opens a turn, 2 closes it."""
    return AutoTokenizer.from_pretrained(tiny / "llama")


@pytest.fixture
def plain(tiny):
    """Tokenizer without a chat template; 0 ends a text."""
    return AutoTokenizer.from_pretrained(tiny / "gpt2")


def test_chat_template_is_used_where_there_is_one(chat):
    prompt = Prompt(Task(prompt="Sum up: {source}", system="Be brief."), chat)
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSum up: A dog.<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.text("A dog.") == text
    ids = prompt.prompt_ids("A dog.")
    assert chat.decode(ids) == text
    assert [token for token in ids if token < 3] == [1, 2, 1, 2, 1]  # the markers are single tokens
    assert Prompt(Task(), chat).text("x") == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.settings.chat


def test_plain_text_where_there_is_none(plain):
    assert Prompt(Task(prompt="Sum up: {source}"), plain).text("A dog.") == "Sum up: A dog.\n\n"
    assert Prompt(Task(system="Be brief."), plain).text("A dog.") == "Be brief.\n\nA dog.\n\n"
    prompt = Prompt(Task(), plain)
    assert plain.decode(prompt.prompt_ids("A dog.")) == "A dog.\n\n"
    assert not prompt.settings.chat


def test_messages_keep_their_roles(chat):
    turns = (Message("system", "S"), Message("user", "U"), Message("assistant", "A"), Message("user", "V"))
    prompt = Prompt(Task(prompt="never: {source}", system="not this"), chat)
    expected = "".join(f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n" for turn in turns) + "<|im_start|>assistant\n"
    assert prompt.text(turns) == expected


@pytest.mark.parametrize(
    "source", ["{x} {source} {{y}}", "{", "}{", "{source}", "100% {0!r} $s \\1", "{{ messages }} {% raw %}"]
)
def test_braces_in_the_source_survive(chat, plain, source):
    assert f"user\nQ: {source}<|im_end|>" in Prompt(Task(prompt="Q: {source}"), chat).text(source)
    assert Prompt(Task(prompt="Q: {source}\nA:"), plain).text(source) == f"Q: {source}\nA:\n\n"


def test_what_a_template_adds_is_stable_from_day_to_day(chat, monkeypatch):
    chat.chat_template = DATED
    before = Prompt(Task(), chat)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 2, tzinfo=tz)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later)
    messages = [{"role": "user", "content": "x"}]
    assert "02 Jan 2031" in chat.apply_chat_template(messages, tokenize=False)  # as the template does by itself
    after = Prompt(Task(), chat)
    assert after.text("x") == before.text("x")
    assert after.text("x").startswith("<|im_start|>system\nToday is 26 Jul 2024<|im_end|>\n")
    assert after.settings.to_json()["fixed_date"] == "26 Jul 2024"


@pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%A, %-d %B %y %H:%M:%S", "%F", "no date"])
def test_the_date_stands_still_in_every_form(chat, form):
    chat.chat_template = "{% set today = strftime_now('" + form + "') if strftime_now is defined %}{{ [today]|join }}"
    assert Prompt(Task(), chat).text("x") == datetime.datetime(2024, 7, 26).strftime(form)


@pytest.mark.parametrize("start", ["", "\n", "  \n ", "{%- if true %}\n\n{% endif %}"])
def test_the_template_is_rendered_as_transformers_does(chat, start):
    chat.chat_template = start + chat.chat_template
    messages = [{"role": "user", "content": "x"}]
    expected = chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert Prompt(Task(), chat).text("x") == expected


def test_a_template_that_refuses(chat):
    chat.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ModelError) as error:
        Prompt(Task(), chat)
    assert str(error.value) == (
        "the model's chat template cannot be rendered: System role not supported; set task.system or use a model without one"
    )


def test_an_answer_ends_as_the_template_closes_a_turn(chat, tiny):
    assert Prompt(Task(), chat).end_ids == [2]
    chat.eos_token = "<|endoftext|>"
    prompt = Prompt(Task(), chat)
    assert prompt.end_ids == [2, 0]  # <|im_end|> is written in training; both stop generation
    assert prompt.target_ids("fox")[-1] == 2
    assert Prompt(Task(), AutoTokenizer.from_pretrained(tiny / "gpt2")).end_ids == [0]


def test_no_way_to_end(plain):
    plain.eos_token = None
    with pytest.raises(ModelError) as error:
        Prompt(Task(), plain)
    assert str(error.value) == (
        "the tokenizer has no end token and no chat template that closes a turn; set eos_token in its tokenizer_config.json"
    )


def test_a_template_alone_is_enough_to_end(chat):
    chat.eos_token = None
    assert Prompt(Task(), chat).end_ids == [2]


def test_padding(chat, plain):
    assert chat.pad_token_id == chat.eos_token_id == 2  # masked by length, so the end token stays an end token
    prompt = Prompt(Task(), chat)
    assert (prompt.pad_id, prompt.end_ids) == (2, [2])
    assert plain.pad_token_id is None
    assert Prompt(Task(), plain).pad_id == 0
    plain.pad_token = "!"
    assert Prompt(Task(), plain).pad_id == plain.convert_tokens_to_ids("!")


def test_special_tokens_of_the_tokenizer(plain, chat, tiny):
    """A beginning that the tokenizer writes is kept once; an end after the prompt is not; templates write their own."""
    for tokenizer in (plain, chat):
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="! $A <|endoftext|>", special_tokens=[("!", tokenizer.convert_tokens_to_ids("!")), ("<|endoftext|>", 0)]
        )
    mark = plain.convert_tokens_to_ids("!")
    prompt = Prompt(Task(), plain)
    ids = prompt.prompt_ids("fox")
    assert ids.count(mark) == 1
    assert ids[0] == mark
    assert 0 not in ids
    answer = prompt.target_ids("fox")
    assert mark not in answer
    assert answer.count(0) == 1
    in_chat = Prompt(Task(), chat).prompt_ids("fox")
    assert in_chat[0] == 1
    assert chat.convert_tokens_to_ids("!") not in in_chat
    t5 = AutoTokenizer.from_pretrained(tiny / "t5")
    assert t5("fox").input_ids[-1] == t5.eos_token_id
    assert t5.eos_token_id not in Prompt(Task(), t5).prompt_ids("fox")


@pytest.mark.parametrize("text", ["a fox", CJK, "é ü 🙂", " two  spaces ", "line\nbreak"])
def test_answers_come_back(chat, plain, text):
    for tokenizer in (chat, plain):
        prompt = Prompt(Task(), tokenizer)
        ids = prompt.target_ids(text)
        assert tokenizer.decode(ids) == text + tokenizer.decode(prompt.end_ids[:1])
        assert prompt.decode(ids) == text.strip()


def test_a_context_has_a_place_of_its_own_or_comes_below_the_source(plain):
    assert (
        Prompt(Task(prompt="{context}\nQ: {source}"), plain).text("who? {context}", "a {source}")
        == "a {source}\nQ: who? {context}\n\n"
    )
    assert Prompt(Task(prompt="Q: {source} A:"), plain).text("who?", "text") == "Q: who?\n\ntext A:\n\n"
