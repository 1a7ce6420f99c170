"""A decoder's pass on the layers of training: in 16 bits, where rows of zeros stand behind those of tokens."""

import pytest
import torch

from llmft.models.decoding import decoder, flat_pass
from llmft.models.decoding.decoder import Prompts
from llmft.models.packed import can_pack

needs_packing = pytest.mark.skipif(
    not can_pack(torch.device("cpu"), torch.bfloat16), reason="no products in bfloat16 on this processor"
)


@pytest.mark.parametrize("packs", [False, pytest.param(True, marks=needs_packing)], ids=["plain", "packed"])
@pytest.mark.parametrize("count", [3, 9, 11])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3"])
def test_scores_are_the_models_own(open_writer, sources_for, monkeypatch, name, count, packs):
    monkeypatch.setattr(decoder, "PART", 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # parts are no smaller than that
    pretrained = open_writer(name)
    model, sources = pretrained.model.eval(), sources_for(pretrained)[:count]
    following = [source[0] for source in sources]
    with torch.no_grad():
        texts = [*sources, *([*source, token] for source, token in zip(sources, following, strict=True))]
        expected = torch.stack([model(torch.tensor([text]), use_cache=False).logits[0, -1] for text in texts])
    rows, through = [], flat_pass.through
    monkeypatch.setattr(flat_pass, "through", lambda h, *rest: (rows.append(len(h)), through(h, *rest))[1])
    model.to(torch.bfloat16)
    with torch.no_grad():
        flat = flat_pass.packed_flat_of(model, torch.bfloat16) if packs else None
        prompts = Prompts(model, count, max(map(len, sources)), 4, flat=flat)
        found = torch.cat([prompts.begin(sources), prompts.step(torch.tensor(following))])
    assert all(each % flat_pass.STEP == 0 for each in rows) or count < flat_pass.STEP
    assert (found - expected).norm() < 0.02 * expected.norm()  # a step of bfloat16 is 0.008


@needs_packing
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_with_packed_weights_they_are_the_same_to_the_bit(open_writer, sources_for, name, beams):
    """Over a start that all share, whose pass asks for nothing, and with texts that end."""
    model = open_writer(name).model.eval().to(torch.bfloat16)
    sources = [[7, 8, 9, *source] for source in sources_for(open_writer(name))[:9]]

    def scores(flat):
        prompts = Prompts(model, 9, max(map(len, sources)), 4, beams, [7, 8, 9], flat)
        found = [prompts.begin(sources), prompts.step(torch.arange(10, 10 + 9 * beams))]
        prompts.keep([0, 8, 2, 7, 4, 5, 6])
        return torch.cat([*found, prompts.step(torch.arange(50, 50 + 7 * beams))])

    with torch.no_grad():
        assert torch.equal(scores(flat_pass.packed_flat_of(model, torch.bfloat16)), scores(None))
