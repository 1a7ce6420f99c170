"""Weights that stand in while a model writes: what they add up to, and that nothing of them is left afterwards."""

import pytest
import torch
from peft.tuners.lora.layer import Linear as LoraLinear

from llmft.config.schema import Adapter, AdapterKind, Generation
from llmft.errors import DoesNotFit, Stopped
from llmft.models.adapter import add_adapter
from llmft.models.decoding import weights as module
from llmft.models.decoding.decoder import Prompts
from llmft.models.decoding.weights import stand_ins
from llmft.models.generate import generate, generation_config
from llmft.models.packed import can_pack
from llmft.models.rounding import mark_coarse, narrow
from llmft.runs import signals

needs_packing = pytest.mark.skipif(
    not can_pack(torch.device("cpu"), torch.bfloat16), reason="no products in bfloat16 on this processor"
)


@pytest.fixture
def adapted(open_writer):
    """A model whose adapter says something."""

    def make(name, **settings):
        pretrained = open_writer(name)
        add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=4, **settings))
        torch.manual_seed(0)
        for _, weight in pretrained.trained:
            torch.nn.init.normal_(weight, std=0.3)
        pretrained.model.eval()
        return pretrained

    return make


def bits(pretrained):
    return {name: weight.detach().clone() for name, weight in pretrained.model.named_parameters()}


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart"])
def test_an_adapter_is_folded_in_and_taken_out_to_the_bit(adapted, name):
    pretrained = adapted(name)
    before, ids = bits(pretrained), {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    parameters = list(map(id, pretrained.model.parameters()))
    if pretrained.model.config.is_encoder_decoder:
        ids["decoder_input_ids"] = torch.tensor([[1, 9, 8]])
    with torch.no_grad():
        apart = pretrained.model(**ids).logits
        found = stand_ins(pretrained, torch.float32)
        assert len(found.adapted) == len(found.weights) > 0
        with found.in_place():
            torch.testing.assert_close(pretrained.model(**ids).logits, apart, rtol=1e-4, atol=1e-3)
            assert all(layer.merged for layer in found.adapted)
        assert torch.equal(pretrained.model(**ids).logits, apart)
    assert list(map(id, pretrained.model.parameters())) == parameters
    assert all(torch.equal(weight, before[key]) for key, weight in pretrained.model.named_parameters())


@pytest.mark.parametrize("error", [Stopped(10), torch.OutOfMemoryError("out of memory"), ValueError("x")], ids=repr)
def test_whatever_happens_they_are_taken_out(adapted, monkeypatch, error):
    pretrained = adapted("llama")
    config = generation_config(Generation(max_new_tokens=5), pretrained, [2], 2)
    expected = dict(generate(pretrained, [[5, 6, 7]], config, 4, torch.float32))
    before, seen = bits(pretrained), []
    step = Prompts.step

    def failing(self, tokens):
        seen.append(any(layer.merged for layer in pretrained.model.modules() if isinstance(layer, LoraLinear)))
        raise error

    monkeypatch.setattr(Prompts, "step", failing)
    with pytest.raises(DoesNotFit if isinstance(error, torch.OutOfMemoryError) else type(error)):
        list(generate(pretrained, [[5, 6, 7]], config, 4, torch.float32))
    assert seen == [True]
    assert all(torch.equal(weight, before[key]) for key, weight in pretrained.model.named_parameters())
    monkeypatch.setattr(Prompts, "step", step)
    assert dict(generate(pretrained, [[5, 6, 7]], config, 4, torch.float32)) == expected
    assert signals.noted() is None


def test_between_two_texts_the_model_is_its_own(adapted):
    pretrained = adapted("llama")
    before = bits(pretrained)
    config = generation_config(Generation(max_new_tokens=5), pretrained, [2], 2)
    for _ in generate(pretrained, [[5, 6, 7], [8, 9], [4]], config, 1, torch.float32):
        assert all(torch.equal(weight, before[key]) for key, weight in pretrained.model.named_parameters())
        assert not any(layer.merged for layer in pretrained.model.modules() if isinstance(layer, LoraLinear))


def test_what_does_not_fit_stays_apart(adapted, monkeypatch):
    pretrained = adapted("llama")
    monkeypatch.setattr(module, "available_bytes", lambda device: 1000)
    assert stand_ins(pretrained, torch.float32).weights == ()
    config = generation_config(Generation(max_new_tokens=5), pretrained, [2], 2)
    assert len(dict(generate(pretrained, [[5, 6, 7]], config, 4, torch.float32))) == 1


def test_masters_are_rounded_once(open_writer):
    """What autocast does at every product anyway, and the embedding, which the head may share, is left as it is."""
    pretrained = open_writer("llama")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = pretrained.model(ids).logits
        found = stand_ins(pretrained, torch.bfloat16)
        assert {weight.dtype for _, weight in found.weights} == {torch.bfloat16}
        with found.in_place():
            assert torch.equal(pretrained.model(ids).logits, expected)
            assert pretrained.model.get_input_embeddings().weight.dtype is torch.float32
    assert not stand_ins(pretrained, torch.float32).weights


def test_weights_of_a_bfloat16_checkpoint_stand_in_as_they_are_trained(open_writer):
    """Rounded by thresholds: what it learnt would be lost in the nearest numbers."""
    pretrained = open_writer("llama")
    for weight in pretrained.model.parameters():
        weight.data = weight.data.bfloat16().float()
    mark_coarse(pretrained.model)
    found = stand_ins(pretrained, torch.bfloat16)
    assert found.weights
    for layer, weight in found.weights:
        own = layer.weight
        assert torch.equal(weight, own.bfloat16())  # at the start
        own.data *= 1 + 2**-11  # an eighth to a quarter of the way to the next number
    for layer, weight in stand_ins(pretrained, torch.bfloat16).weights:
        own = layer.weight
        assert torch.equal(weight, narrow(own, torch.bfloat16))
        assert not torch.equal(weight, own.bfloat16())


def test_a_small_update_is_in_the_mean_of_folded_weights(open_writer):
    """Of 16 bits' steps it is a fraction: the nearest numbers would be those without it."""
    pretrained = open_writer("llama")
    pretrained.model.bfloat16()
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=4))
    torch.manual_seed(0)
    layers = [layer for layer in pretrained.model.modules() if isinstance(layer, LoraLinear)]
    for layer in layers:
        base, down, up = layer.base_layer.weight.data, layer.lora_A["default"].weight, layer.lora_B["default"].weight
        base.fill_(1.25)  # whose neighbours are 1/128 away
        down.data.fill_(1e-3 / layer.scaling["default"])
        up.data.fill_(0.25)  # W + BA is 1.251, an eighth of the way
    found = dict(stand_ins(pretrained, torch.bfloat16).weights)
    for layer in layers:
        assert layer.base_layer.weight.float().add(1e-3).bfloat16().eq(1.25).all()
    moved = torch.cat([found[layer.base_layer].float().flatten() for layer in layers]) - 1.25
    assert moved.unique().tolist() == [0, 2**-7]
    assert moved.mean().item() == pytest.approx(1e-3, rel=0.1)


@needs_packing
@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "masters"])
def test_for_many_tokens_weights_are_packed(adapted, open_writer, adapter):
    """Nothing stands in the model's own places then: its layers are computed with what was packed."""
    pretrained = adapted("llama") if adapter else open_writer("llama")
    model = pretrained.model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.mul_(0.3)  # or scores are so large that rounding decides whom attention reads
        before = bits(pretrained)
        expected = model(torch.tensor([[5, 6, 7, 8]])).logits[0, -1:]
        found = stand_ins(pretrained, torch.bfloat16, tokens=module.PACK_FROM)
        assert found.flat is not None
        assert not found.weights
        assert not found.adapted
        with torch.autocast("cpu", torch.bfloat16):
            scores = Prompts(model, 1, 4, 1, flat=found.flat).begin([[5, 6, 7, 8]])
    assert (scores - expected).norm() < 0.03 * expected.norm()  # a step of bfloat16 is 0.008
    assert all(torch.equal(weight, before[key]) for key, weight in model.named_parameters())


@needs_packing
def test_what_is_not_packed(adapted, open_writer, monkeypatch):
    pretrained = open_writer("llama")
    assert stand_ins(pretrained, torch.bfloat16, tokens=module.PACK_FROM - 1).flat is None  # it would not pay
    assert stand_ins(pretrained, torch.float32, tokens=module.PACK_FROM).flat is None
    for name in ("t5", "gpt2"):  # whose passes are transformers'
        assert stand_ins(open_writer(name), torch.bfloat16, tokens=module.PACK_FROM).flat is None
    with monkeypatch.context() as patched:
        patched.setattr(module, "can_fold", lambda layer: False)  # an update that cannot be folded in
        assert stand_ins(adapted("llama"), torch.bfloat16, tokens=module.PACK_FROM).flat is None
    size = sum(weight.numel() for weight in pretrained.model.parameters())
    monkeypatch.setattr(module, "available_bytes", lambda device: 5 * size)  # half of it: 2.5, and 2 for what is cast
    found = stand_ins(pretrained, torch.bfloat16, tokens=module.PACK_FROM)
    assert found.flat is None
    assert found.weights


@needs_packing
def test_what_is_packed_is_compared_and_written_with(open_writer, monkeypatch):
    """Six tokens of sources, and three texts of up to three."""
    pretrained = open_writer("llama")
    config = generation_config(Generation(max_new_tokens=3), pretrained, [2], 2)
    sources, flat = [[5, 6, 7], [8, 9], [4]], []
    begin = Prompts.begin
    monkeypatch.setattr(Prompts, "begin", lambda self, *given: (flat.append(self.flat), begin(self, *given))[1])
    plain = dict(generate(pretrained, sources, config, 4, torch.bfloat16))
    assert [each.head for each in flat] == [None, None]
    flat.clear()
    monkeypatch.setattr(module, "PACK_FROM", 15)
    assert dict(generate(pretrained, sources, config, 4, torch.bfloat16)) == plain
    assert len(flat) == 2  # the comparison with the model is made with what is packed, too
    assert all(each.head is not None for each in flat)


@needs_packing
def test_packed_weights_give_way_where_memory_runs_out(open_writer, monkeypatch):
    pretrained = open_writer("llama")
    config = generation_config(Generation(max_new_tokens=3), pretrained, [2], 2)
    sources = [[5, 6, 7], [8, 9], [4]]
    expected = dict(generate(pretrained, sources, config, 4, torch.bfloat16))
    monkeypatch.setattr(module, "PACK_FROM", 15)
    step, seen = Prompts.step, []

    def failing(self, tokens):
        seen.append((self.flat.head is not None, self.rows))
        if self.flat.head is not None and self.rows == 3:
            raise torch.OutOfMemoryError("out of memory")
        return step(self, tokens)

    monkeypatch.setattr(Prompts, "step", failing)
    assert dict(generate(pretrained, sources, config, 4, torch.bfloat16)) == expected
    assert (True, 3) in seen
    assert seen[-1] == (False, 3)  # and only then fewer texts at a time


@needs_packing
@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory"), MemoryError()], ids=repr)
def test_without_room_after_all_they_are_not_packed(open_writer, monkeypatch, error):
    def refuse(*given):
        raise error

    monkeypatch.setattr(module, "packed_flat_of", refuse)
    found = stand_ins(open_writer("llama"), torch.bfloat16, tokens=module.PACK_FROM)
    assert found.flat is None
    assert found.weights
