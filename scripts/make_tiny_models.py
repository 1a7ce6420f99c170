"""Write tiny random models of the architectures that conf/model names, as ordinary folders: for tests and for trying things.

    python scripts/make_tiny_models.py FOLDER [NAME ...]

Each has its family's class, a tokenizer of that family's kind trained on a few sentences, and two layers 32 wide.
"""

import json
import re
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES as CODES_25
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as CODES_50

TEXT = [
    "The quick brown fox jumps over the lazy dog while the cat sleeps in the sun.",
    "A function returns a value; a module holds functions, classes and names.",
    "Summarize the following text in one sentence, please, and say what it is about.",
    "Numbers such as 0, 1, 2, 3, 4, 5, 6, 7, 8 and 9 are words too, in their way.",
    "Return the first element of a list, or raise an error if there is none.",
]
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
PAIRED: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 512,
}


def byte_tokenizer(special: list[str], **roles: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it: every text can be written."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def pieces(special: list[str]) -> list[tuple[str, float]]:
    """A vocabulary as sentencepiece makes it (unigram): words marked by their leading space, each with its log-probability."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = sorted({letter for text in TEXT for letter in text} | set("abcdefghijklmnopqrstuvwxyz"))
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXT, trainer)
    # Training is not quite repeatable: which of two pieces as likely as each other comes first differs from time to time.
    learnt = {piece: round(score, 2) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]}
    ordered = sorted(learnt.keys() - set(special), key=lambda piece: (-learnt[piece], piece))
    return [(piece, learnt[piece]) for piece in [*special, *ordered]]


def sentence_tokenizer(special: list[str], ending: str, **roles: str) -> PreTrainedTokenizerFast:
    """A tokenizer over such a vocabulary, as a plain file; `ending` closes a text."""
    vocabulary = pieces(special)
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    ids = [(token, tokenizer.token_to_id(token)) for token in (ending,)]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {ending}", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def multilingual(codes: list[str]) -> list[tuple[str, float]]:
    """The vocabulary of mBART: pieces, then languages, then the mask."""
    return [*pieces(["<s>", "<pad>", "</s>", "<unk>"]), *((code, 0.0) for code in [*codes, "<mask>"])]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece with [CLS] and [SEP], as BERT has it; letters and words, because a trained vocabulary differs from time to time."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = set(re.findall(r"\w+|[^\w\s]", " ".join(TEXT).lower()))
    letters = sorted({letter for word in words for letter in word} | set(string.ascii_lowercase))
    vocabulary = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *sorted(words)])
    tokenizer = Tokenizer(models.WordPiece(vocab={token: place for place, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


Made = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def llama() -> Made:
    """A chat model: grouped key/value heads, tied embeddings, a chat template, pad equal to the end token."""
    tokenizer = byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.chat_template = CHAT
    ends: dict[str, Any] = {"eos_token_id": 2, "pad_token_id": 2, "bos_token_id": 1}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, **SMALL, **ends
    )
    return LlamaForCausalLM(config), tokenizer


def qwen3() -> Made:
    """A chat model with normalised queries and keys."""
    tokenizer = byte_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        eos_token_id=2,
        pad_token_id=0,
        **SMALL,
    )
    return Qwen3ForCausalLM(config), tokenizer


def gpt2() -> Made:
    """A plain decoder: no chat template, no pad token, learnt positions, dropout."""
    tokenizer = byte_tokenizer(["<|endoftext|>"], eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config), tokenizer


def bert() -> Made:
    """An encoder."""
    tokenizer = word_tokenizer()
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **SMALL)), tokenizer


def roberta() -> Made:
    """An encoder whose positions begin behind the pad token's, with one token type."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    roles = {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer(special, bos_token="<s>", eos_token="</s>", **roles)
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=514, type_vocab_size=1, **SMALL)
    return RobertaForMaskedLM(config), tokenizer


def t5() -> Made:
    """An encoder-decoder with relative positions, told what to do by a prefix."""
    tokenizer = T5Tokenizer(vocab=pieces(["<pad>", "</s>", "<unk>"]), extra_ids=0)
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    config.decoder_start_token_id = 0
    prefixes = {"summarization": "summarize: ", "translation_en_to_de": "translate English to German: "}
    config.task_specific_params = {task: {"prefix": prefix, "num_beams": 4} for task, prefix in prefixes.items()}
    return T5ForConditionalGeneration(config), tokenizer


def bart() -> Made:
    """An encoder-decoder with learnt positions and byte-level BPE, whose folder brings settings of its own along."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = byte_tokenizer(special, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    model = BartForConditionalGeneration(BartConfig(vocab_size=len(tokenizer), **PAIRED))
    model.generation_config.update(
        forced_bos_token_id=0,
        num_beams=4,
        early_stopping=True,
        no_repeat_ngram_size=3,
        length_penalty=2.0,
        min_length=6,
        max_length=9,
    )
    return model, tokenizer


def marian() -> Made:
    """The translation model behind opus-mt: sinusoidal positions, decoding starts with the pad token and never writes it."""
    tokenizer = sentence_tokenizer(["</s>", "<unk>", "<pad>"], "</s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    ends: dict[str, Any] = {"pad_token_id": 2, "eos_token_id": 0, "decoder_start_token_id": 2, "forced_eos_token_id": 0}
    model = MarianMTModel(MarianConfig(vocab_size=len(tokenizer), scale_embedding=True, **ends, **PAIRED))
    model.generation_config.update(bad_words_ids=[[2]], num_beams=4, max_length=512)
    return model, tokenizer


def mbart() -> Made:
    """mBART-50: the target's language is the first token it writes."""
    tokenizer = MBart50Tokenizer(vocab=multilingual(CODES_50))
    config = MBartConfig(vocab_size=len(tokenizer), decoder_start_token_id=2, scale_embedding=True, **PAIRED)
    return MBartForConditionalGeneration(config), tokenizer


def mbart25() -> Made:
    """mBART: the target's language is the token that it starts from."""
    tokenizer = MBartTokenizer(vocab=multilingual(CODES_25))
    return MBartForConditionalGeneration(MBartConfig(vocab_size=len(tokenizer), scale_embedding=True, **PAIRED)), tokenizer


def m2m100() -> Made:
    """NLLB: the class of M2M100, languages named by script."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=200, special_tokens=["<s>", "<pad>", "</s>", "<unk>"]))
    learnt = json.loads(tokenizer.to_str())["model"]
    nllb = NllbTokenizer(vocab=learnt["vocab"], merges=[tuple(pair) for pair in learnt["merges"]])  # type: ignore[misc]
    config = M2M100Config(vocab_size=len(nllb), decoder_start_token_id=2, scale_embedding=True, **PAIRED)
    return M2M100ForConditionalGeneration(config), nllb


MODELS: dict[str, Callable[[], Made]] = {
    make.__name__: make for make in (llama, qwen3, gpt2, bert, roberta, t5, bart, marian, mbart, mbart25, m2m100)
}


def main(folder: Path, wanted: list[str]) -> None:
    """Write the wanted models, all of them if none is named, under `folder`."""
    for name in wanted or list(MODELS):
        torch.manual_seed(0)
        model, tokenizer = MODELS[name]()
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
