"""What encoder-decoders read and write: prompts, T5's own prefixes, and what the tokenizer puts around a target."""

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from llmft.config.schema import Task
from llmft.data.encoder_prompt import EncoderPrompt
from llmft.errors import ModelError

T5 = SimpleNamespace(
    task_specific_params={
        "summarization": {"prefix": "summarize: ", "num_beams": 4},
        "translation_en_to_de": {"prefix": "translate English to German: "},
        "translation_en_to_fr": {"prefix": "translate English to French: "},
    }
)
OTHER = SimpleNamespace(task_specific_params=None)


@pytest.fixture
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny / "t5")


@pytest.mark.parametrize(
    ("task", "config", "expected"),
    [
        (Task(name="summarization"), T5, "summarize: the fox"),
        (Task(name="translation", source_language="en", target_language="de"), T5, "translate English to German: the fox"),
        (Task(name="mine", source_language="en_XX", target_language="fr_XX"), T5, "translate English to French: the fox"),
        (Task(name="translation", source_language="de", target_language="en"), T5, "the fox"),  # not what it was trained on
        (Task(name="summarization"), OTHER, "the fox"),
        (Task(name="summarization", encoder_prompt="short: {source}"), T5, "short: the fox"),
        (Task(name="summarization", encoder_prompt="{source}"), T5, "the fox"),
    ],
)
def test_the_models_own_prefix_unless_the_task_says_otherwise(tokenizer, task, config, expected):
    prompt = EncoderPrompt(task, tokenizer, config)
    assert prompt.prompt_ids("the fox") == tokenizer(expected).input_ids
    assert prompt.settings.encoder_prompt.replace("{source}", "the fox") == expected


def test_a_context(tokenizer):
    prompt = EncoderPrompt(Task(encoder_prompt="question: {source} context: {context}"), tokenizer, OTHER)
    assert prompt.prompt_ids("who {context}", "a fox") == tokenizer("question: who {context} context: a fox").input_ids


def test_a_target_ends_with_one_end_token(tiny):
    for name in ("t5", "bart", "marian"):
        tokenizer = AutoTokenizer.from_pretrained(tiny / name)
        ids = EncoderPrompt(Task(), tokenizer, OTHER).target_ids("the fox")
        assert ids.count(tokenizer.eos_token_id) == 1
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "the fox"


def test_a_tokenizer_without_end(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"^the tokenizer has no end token; set eos_token in its tokenizer_config\.json"):
        EncoderPrompt(Task(), tokenizer, OTHER)
