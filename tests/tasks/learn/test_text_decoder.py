"""Text to text on decoders: what carries loss, that prompts are alike in training and prediction, what is cut and left out."""

import numpy as np
import pytest
import torch

from llmft.config.schema import LossOn, Truncation
from llmft.data.example import Message, TextExample
from llmft.errors import ConfigError, DataError
from llmft.models.forward import Path

CJK = "東京都は日本の首都です"


def example(source, target="A red fox.", name="0"):
    return TextExample(name, source, (target,), "f:1")


def encode(task, *examples):
    """Encode examples that make one document each."""
    return [document for each in examples for document in task.encode(each)]


@pytest.mark.parametrize("target", ["A red fox.", CJK, "two\nlines ", "{braces}"])
@pytest.mark.parametrize(("name", "end"), [("llama", "<|im_end|>"), ("qwen3", "<|im_end|>"), ("gpt2", "<|endoftext|>")])
def test_the_answer_and_its_end_carry_loss_and_the_prompt_none(open_text, name, end, target):
    task = open_text(name, prompt="Sum up: {source}", system="Brief.")
    found = encode(task, example("The quick brown fox", target))[0]
    tokenizer = task.pretrained.tokenizer
    assert tokenizer.decode(found.ids[found.loss_mask]) == target + end
    assert tokenizer.decode(found.ids[~found.loss_mask]) == task.prompt.text("The quick brown fox")
    edge = int(np.argmax(found.loss_mask))
    assert found.loss_mask[edge:].all()  # one piece, at the end
    assert found.units == len(found.ids) - edge
    assert (found.id, found.where, found.source_ids, found.source_cut) == ("0", "f:1", None, 0)


@pytest.mark.parametrize("truncation", [Truncation.end, Truncation.start])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_prompts_are_alike_in_training_and_prediction(open_text, monkeypatch, name, truncation):
    task = open_text(name, max_source_tokens=12, truncation=truncation, prompt="Q: {source}\nA:")
    examples = [example(text) for text in ("short", "The quick brown fox jumps over the lazy dog " * 5, CJK * 3, "{x} }{", "")]
    trained = []
    for each in examples:
        [encoded] = task.encode(each)
        trained.append(encoded.ids[~encoded.loss_mask].tolist())
    seen = []
    monkeypatch.setattr(
        "llmft.tasks.learn.text_decoder.generate", lambda model, prompts, *rest: seen.extend(map(list, prompts)) or iter(())
    )
    list(task.predict(examples))
    assert seen == trained


@pytest.mark.parametrize("truncation", [Truncation.end, Truncation.start])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_only_the_source_is_cut_and_the_frame_stays_whole(open_text, name, truncation):
    task = open_text(name, max_source_tokens=5, truncation=truncation, prompt="Before {source} after:", system="S")
    text = "The quick brown fox jumps over the lazy dog while the cat sleeps in the sun."
    tokenizer = task.pretrained.tokenizer
    [found] = task.encode(example(text))
    size = len(tokenizer(text, add_special_tokens=False).input_ids)
    frame_before, frame_after = task.prompt.text("\0").split("\0")
    shown = tokenizer.decode(found.ids[~found.loss_mask])
    assert shown.startswith(frame_before)
    assert shown.endswith(frame_after)
    kept = shown.removeprefix(frame_before).removesuffix(frame_after)
    assert text.startswith(kept) if truncation is Truncation.end else text.endswith(kept)
    assert len(tokenizer(kept, add_special_tokens=False).input_ids) == 5
    assert found.source_cut == size - 5
    assert found.units == len(task.prompt.target_ids("A red fox."))  # the answer is whole


def test_truncation_as_an_error(open_text):
    task = open_text(max_source_tokens=5, truncation=Truncation.error)
    with pytest.raises(DataError, match=r"^f:1: the source has \d+ tokens, task\.max_source_tokens allows 5\. "):
        encode(task, example("The quick brown fox jumps over the lazy dog"))
    assert encode(task, example("fox"))[0].units > 0


@pytest.mark.parametrize("source", ["lazy dog " * 400, CJK * 60, "x" * 3000])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_everything_fits_the_context(open_text, name, source):
    """512 tokens: the source gives way, to the answer in training and to max_new_tokens in prediction."""
    task = open_text(name, max_new_tokens=20)
    answer = "fox " * 40
    [found] = task.encode(example(source, answer))
    assert 512 - 3 < len(found) <= 512
    assert task.pretrained.tokenizer.decode(found.ids[found.loss_mask]).startswith(answer)
    assert found.source_cut > 0
    with torch.no_grad():
        assert torch.isfinite(task.loss([found]))
    [(place, prediction)] = task.predict([example(source)])
    assert place == 0
    assert prediction.finished in ("stop", "length")


def test_a_target_is_never_cut(open_text):
    task = open_text(max_target_tokens=5)
    long, short = encode(task, example("x", "one two three four five six seven"), example("x", "fox"))
    assert (len(long), long.units) == (0, 0)  # left out, and counted by whoever reads the cache
    assert short.units == len(task.prompt.target_ids("fox")) <= 5
    [beyond_the_context] = open_text().encode(example("x", "fox " * 600))
    assert len(beyond_the_context) == 0


def test_no_room_for_a_source(open_text):
    with pytest.raises(ConfigError) as error:
        open_text("gpt2", max_new_tokens=511)
    assert str(error.value) == (
        "generation.max_new_tokens=511 leaves no room for a source: the model reads 512 tokens, 2 of them are the prompt. Lower it."
    )


def test_loss_is_that_of_the_answer(open_text):
    """By the definition: the sum of -log p(token | all before it) over the answer and its end."""
    task = open_text("gpt2")
    documents = encode(task, example("The quick", "brown fox"), example("A", "dog sleeps in the sun"))
    expected = 0.0
    with torch.no_grad():
        for item in documents:
            ids = torch.from_numpy(item.ids.astype(np.int64))
            logp = task.pretrained.model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            expected -= sum(logp[at - 1, ids[at]].item() for at in range(len(ids)) if item.loss_mask[at])
        assert task.path is Path.plain
        assert task.loss(documents).item() == pytest.approx(expected, rel=1e-5)
        assert task.check_fast_path(documents).fast
        assert task.path is Path.ragged
        assert task.loss(documents).item() == pytest.approx(expected, rel=1e-5)


def test_predictions_come_with_their_place_and_their_end(open_text, monkeypatch):
    task = open_text("gpt2", max_new_tokens=4)
    examples = [
        example(text, name=str(place)) for place, text in enumerate(["a", "The quick brown fox", "dog", "one two three"])
    ]
    found = dict(task.predict(examples))
    assert sorted(found) == [0, 1, 2, 3]
    assert [found[place].id for place in range(4)] == ["0", "1", "2", "3"]
    model, tokenizer = task.pretrained.model, task.pretrained.tokenizer
    for place, each in enumerate(examples):
        ids = torch.tensor([task.prompt.prompt_ids(each.source)])
        row = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, pad_token_id=0)[0]
        written = row[ids.shape[1] :].tolist()
        assert found[place].text == tokenizer.decode(written, skip_special_tokens=True).strip()
        assert found[place].finished == ("stop" if 0 in written else "length")


def test_limited_holds_other_answers_to_the_same_length(open_text):
    task = open_text("gpt2", max_new_tokens=3)
    tokenizer = task.pretrained.tokenizer
    text = "The quick brown fox jumps"
    assert task.limited(text) == tokenizer.decode(tokenizer(text).input_ids[:3])
    assert task.limited("fox") == "fox"


TURNS = (Message("system", "Be brief."), Message("user", "fox"), Message("assistant", "red"), Message("user", "dog"))


def test_every_answer_of_a_conversation_is_learnt_in_one_document(open_text):
    task = open_text("llama", messages="m")
    [found] = task.encode(TextExample("0", TURNS, ("brown",), "f:1"))
    tokenizer = task.pretrained.tokenizer
    assert tokenizer.decode(found.ids[found.loss_mask]) == "red<|im_end|>brown<|im_end|>"
    whole = [{"role": turn.role, "content": turn.content} for turn in (*TURNS, Message("assistant", "brown"))]
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    assert tokenizer.decode(found.ids) == text.removesuffix("\n")


def test_or_only_the_last(open_text):
    task = open_text("llama", messages="m", loss_on=LossOn.last)
    [found] = task.encode(TextExample("0", TURNS, ("brown",), "f:1"))
    assert task.pretrained.tokenizer.decode(found.ids[found.loss_mask]) == "brown<|im_end|>"


def test_without_a_chat_template_each_answer_is_a_document_of_its_own(open_text):
    task = open_text("gpt2", messages="m")
    found = list(task.encode(TextExample("0", TURNS, ("brown",), "f:1")))
    tokenizer = task.pretrained.tokenizer
    assert [tokenizer.decode(item.ids) for item in found] == [
        "Be brief.\n\nfox\n\nred\n\ndog\n\nbrown<|endoftext|>",
        "Be brief.\n\nfox\n\nred<|endoftext|>",
    ]
    assert [tokenizer.decode(item.ids[item.loss_mask]) for item in found] == ["brown<|endoftext|>", "red<|endoftext|>"]


def test_a_long_conversation_loses_its_oldest_turns_and_a_long_turn_its_end(open_text):
    task = open_text("llama", messages="m", max_source_tokens=40)
    old = (Message("user", "one " * 20), Message("assistant", "two " * 20))
    [(ids, cut)] = [task.prompt_of(TextExample("0", (TURNS[0], *old, TURNS[3]), (), "f:1"), room=8)]
    assert ids == task.prompt.prompt_ids((TURNS[0], TURNS[3]))
    assert cut == len(task.prompt.prompt_ids((TURNS[0], *old, TURNS[3]))) - len(ids)
    [(ids, cut)] = [task.prompt_of(TextExample("0", (Message("user", "sun " * 60),), (), "f:1"), room=8)]
    assert len(ids) <= 40
    assert cut > 0
    assert task.pretrained.tokenizer.decode(ids).endswith("<|im_end|>\n<|im_start|>assistant\n")  # the frame is whole


def test_of_a_question_with_its_context_the_context_is_cut(open_text):
    task = open_text("llama", prompt="Read: {context}\nAnswer: {source}", max_source_tokens=6)
    example = TextExample("0", "what goes with the fox", ("dog",), "f:1", "sun " * 40)
    ids, cut = task.prompt_of(example, room=8)
    text = task.pretrained.tokenizer.decode(ids)
    assert "Answer: what goes with the fox" in text
    assert text.count("sun") < 8
    assert cut > 0
