"""Encoders whose layers see no padding, against transformers' own on one document at a time."""

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    BertConfig,
    ElectraConfig,
    RobertaConfig,
)

from llmft.models.ragged.encoder import encoding, first_tokens, flat_encoder, reason_against

SIZES = {"vocab_size": 90, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES, pad_token_id=1),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
}
HEADS = {
    "answers": AutoModelForQuestionAnswering,
    "labels": AutoModelForSequenceClassification,
    "words": AutoModelForMaskedLM,
}
LENGTHS = (5, 9, 1, 9)


def open_model(config, head, loud):
    torch.manual_seed(0)
    return loud(HEADS[head].from_config(CONFIGS[config])).double()


def read(lengths):
    torch.manual_seed(1)
    ids = torch.randint(4, 90, (len(lengths), max(lengths)))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask}


def scores(found, lengths):
    """All scores of tokens, or of texts, in a row."""
    kinds = [name for name in ("start_logits", "end_logits", "logits") if name in found]
    rows = [found[name][row, :length] if found[name].shape[:2] == (len(lengths), max(lengths)) else found[name][row]
            for name in kinds for row, length in enumerate(lengths)]  # fmt: skip
    return torch.cat([row.flatten() for row in rows])


def alone(model, inputs, lengths):
    found = [
        scores(model(input_ids=inputs["input_ids"][row : row + 1, :length]), [length]) for row, length in enumerate(lengths)
    ]
    kinds = 2 if len(found[0]) == 2 * lengths[0] and "qa_outputs" in dict(model.named_modules()) else 1
    parts = [each.chunk(kinds) for each in found]
    return torch.cat([parts[row][kind] for kind in range(kinds) for row in range(len(lengths))])


def gradients(loss, weights):
    for weight in weights:
        weight.grad = None
    loss.backward()
    return [None if weight.grad is None else weight.grad.clone() for weight in weights]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6)], ids=["padded", "of one length"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("config", CONFIGS)
def test_scores_and_gradients_are_those_of_one_document_at_a_time(loud, config, head, lengths):
    model = open_model(config, head, loud)
    assert reason_against(model) is None
    inputs = read(lengths)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    expected = alone(model, inputs, lengths)
    towards = torch.linspace(-1, 2, len(expected), dtype=torch.float64)
    wanted = gradients((expected * towards).sum(), weights)
    with flat_encoder(model, inputs, torch.float64):
        found = scores(model(**inputs), lengths)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    got = gradients((found * towards).sum(), weights)
    for one, two in zip(got, wanted, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6), (1, 1)], ids=["padded", "of one length", "of one token"])
@pytest.mark.parametrize("head", ["labels", "words"])
@pytest.mark.parametrize("config", CONFIGS)
def test_the_last_layer_computes_what_is_read_of_it(loud, config, head, lengths):
    model, inputs = open_model(config, head, loud), read(lengths)
    width = max(lengths)
    asked = first_tokens(inputs)
    if head == "words":  # hidden ones, in all documents but the second
        hidden = [(0, 0), (0, 4), (2, 0), (3, 8)]
        asked = torch.tensor([row * width + place for row, place in hidden if row < len(lengths) and place < lengths[row]])
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def scored(given):
        with flat_encoder(model, inputs, torch.float64, given):
            found = model(**inputs).logits
        return (found if head == "labels" else found.flatten(0, 1)[asked]).flatten()

    expected = scored(None)
    towards = torch.linspace(-1, 2, len(expected), dtype=torch.float64)
    wanted = gradients((expected * towards).sum(), weights)
    found = scored(asked)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for one, two in zip(gradients((found * towards).sum(), weights), wanted, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)
    with flat_encoder(model, inputs, torch.float64, asked), torch.no_grad():
        states = model.base_model(**inputs).last_hidden_state.flatten(0, 1)
    assert states.abs().sum(1).nonzero()[:, 0].tolist() == asked.tolist()


def test_the_model_is_as_before_after_the_block(loud):
    model = open_model("bert", "labels", loud)
    inputs = read(LENGTHS)
    before = model(**inputs).logits
    with encoding(model, inputs, torch.float32, flat=False):
        assert model(**inputs).logits.equal(before)
    with pytest.raises(ZeroDivisionError), flat_encoder(model, inputs, torch.float64):
        raise ZeroDivisionError
    assert model(**inputs).logits.equal(before)


def test_dropout_is_drawn_in_training_alone(loud):
    model, inputs = open_model("bert", "labels", loud), read(LENGTHS)

    def once():
        with torch.no_grad(), flat_encoder(model, inputs, torch.float64):
            return model.base_model(**inputs).last_hidden_state

    assert once().equal(once())
    model.train()
    torch.manual_seed(0)
    first, second = once(), once()
    torch.manual_seed(0)
    assert once().equal(first)
    assert not first.equal(second)


def test_what_is_not_known_is_said(loud):
    model = AutoModelForMaskedLM.from_config(BertConfig(**SIZES, hidden_act="tanh"))
    assert reason_against(model) == "the activation is tanh"
    model = open_model("bert", "labels", loud)
    model.bert.encoder.layer[1].output.LayerNorm = torch.nn.Identity()
    assert reason_against(model) == "a norm is a Identity"
