"""What tests of models measure against: losses as any user of transformers would take them, and how far gradients are apart."""

import numpy as np
import torch

SMALL = {  # settings of a decoder
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def decoder_loss(model, documents):
    """Sum of token losses, one document at a time, labels -100 where there is no loss."""
    total = torch.zeros(())
    for item in documents:
        ids = torch.from_numpy(item.ids.astype(np.int64))
        labels = torch.where(torch.from_numpy(item.loss_mask), ids, -100)[None]
        count = int((labels[:, 1:] != -100).sum())
        if count:
            total = total + model(input_ids=ids[None], labels=labels).loss * count
    return total


def pair_loss(model, item):
    """Sum of an answer's token losses, labels -100 where there is no loss."""
    ids = torch.from_numpy(item.ids.astype(np.int64))
    labels = torch.where(torch.from_numpy(item.loss_mask), ids, -100)[None]
    start = torch.cat([torch.tensor([model.config.decoder_start_token_id]), ids[:-1]])[None]
    source = torch.from_numpy(item.source_ids.astype(np.int64))[None]
    return model(input_ids=source, decoder_input_ids=start, labels=labels).loss * item.units


def gradients(model, *losses):
    """Gradients of the sum of `losses` by weight; one may be a function, so that micro-batches are freed one by one."""
    model.zero_grad()
    for loss in losses:
        (loss() if callable(loss) else loss).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def farthest(found, expected, floor=0.0):
    """The largest relative L2 distance of a gradient, over the weights.

    floor: a gradient less than this part of the largest is measured by that part. A key's bias, which moves no softmax, has none
    but rounding.
    """
    assert found.keys() == expected.keys()
    least = floor * max(gradient.norm() for gradient in expected.values())
    return max(float((found[name] - expected[name]).norm() / max(expected[name].norm(), least)) for name in expected)
