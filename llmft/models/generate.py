"""Decoding: prompts or sources in, what the model writes out, one interface for both families that write."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GenerationConfig

from llmft.config.schema import Generation
from llmft.errors import DoesNotFit
from llmft.hardware.memory import is_out_of_memory, release
from llmft.models.computing import computing
from llmft.models.decoding.beam import BeamSearch
from llmft.models.decoding.covered import NEUTRAL, covered
from llmft.models.decoding.decoder import Prompts
from llmft.models.decoding.flat_pass import Flat
from llmft.models.decoding.pair import Pairs
from llmft.models.decoding.plain import PlainSearch
from llmft.models.decoding.search import Search, Writer
from llmft.models.decoding.text import Text
from llmft.models.decoding.weights import StandIns, stand_ins
from llmft.models.family import Family
from llmft.models.load import Pretrained
from llmft.models.token_ids import end_ids as own_ends
from llmft.runs import signals


@dataclass(frozen=True)
class Continuation:
    """Tokens that a model wrote, without start and end tokens; `finished` is "stop" at an end token, "length" at the limit."""

    ids: list[int]
    finished: str


# What a model's own generation_config.json keeps its say on: tokens that its weights were trained to begin or end with, or
# never to write (Marian's pad token). How to search is llmft's `generation` alone: lengths, beams, penalties and sampling that
# a model's folder brings along (BART: 4 beams, no repeated trigram) would change results in silence.
NONE = StandIns((), ())
KEPT = ("bos_token_id", "forced_eos_token_id", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens")


def generation_config(
    generation: Generation, pretrained: Pretrained, end_ids: Sequence[int], pad_id: int, forced_bos: int | None = None
) -> GenerationConfig:
    """Translate llmft's settings into transformers', also saved with the final model.

    forced_bos: the target language's code, which a multilingual encoder-decoder writes first; None: what the model's own
    configuration says (BART's <s>), if anything. It is no part of a text, so it does not count in generation.max_new_tokens.
    """
    model = pretrained.model
    own = model.generation_config
    sampling = generation.temperature > 0
    config = GenerationConfig(
        **NEUTRAL,
        num_beams=generation.num_beams,
        do_sample=sampling,
        repetition_penalty=generation.repetition_penalty,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        length_penalty=generation.length_penalty,
        # the model was trained to end at its own, too: Llama 3 names three, the tokenizer one of them
        eos_token_id=list(dict.fromkeys([*end_ids, *own_ends(own)])),
        pad_token_id=pad_id,
        **{name: getattr(own, name, None) for name in KEPT},
    )
    if pretrained.family is Family.encoder_decoder:
        config.decoder_start_token_id = model.config.decoder_start_token_id  # what training begins targets with
        config.forced_bos_token_id = own.forced_bos_token_id if forced_bos is None else forced_bos
    config.max_new_tokens = generation.max_new_tokens + (config.forced_bos_token_id is not None)
    if sampling:  # transformers warns about sampling settings that greedy decoding does not read
        config.update(temperature=generation.temperature, top_p=generation.top_p, top_k=generation.top_k or 0)
    return config


def generate(
    pretrained: Pretrained,
    sources: Sequence[Sequence[int]],
    config: GenerationConfig,
    batch_size: int,
    precision: torch.dtype,
) -> Iterator[tuple[int, Continuation]]:
    """Decode what follows each prompt (decoders), or what answers each source (encoder-decoders).

    Yields it with the source's place, as texts end. Sources of similar length are written side by side, longest first, so
    that what needs most memory comes first. Where memory runs out, batches are half as large from there on. Who shares a
    batch changes no text, to rounding.
    Raises Stopped at the next token after a signal, DoesNotFit where a source does not even fit alone.
    """
    seed = int(torch.randint(2**62, (1,))) if config.do_sample else 0
    waiting = sorted(range(len(sources)), key=lambda row: (-len(sources[row]), row))
    with inside(pretrained, precision):
        tokens = sum(map(len, sources)) + len(sources) * config.max_new_tokens
        weights = stand_ins(pretrained, precision, tokens)
        ours = bool(waiting) and covered(pretrained, config, sources, precision, weights)
        if not ours:
            weights = NONE  # PEFT's own way
    skipped = config.forced_bos_token_id is not None  # a token forced to be the first is no part of a text
    search: Search | BeamSearch | PlainSearch | None = None
    while waiting:
        try:
            with inside(pretrained, precision), weights.in_place():
                given = (pretrained, config, [(place, sources[place]) for place in waiting], batch_size, seed)
                search = own_search(*given, weights.flat) if ours else PlainSearch(*given)
            while search.busy:
                with inside(pretrained, precision), weights.in_place():
                    found = search.advance()
                ended = {place for place, _ in found}
                waiting = [place for place in waiting if place not in ended]
                yield from ((place, until_end(ids[skipped:], config)) for place, ids in found)
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            batch_size = batch_size if weights.flat else min(batch_size, len(waiting)) // 2
            if not batch_size:
                raise DoesNotFit(
                    f"out of memory while a text is written after one source of {len(sources[waiting[0]])} tokens alone. Set "
                    "generation.num_beams or generation.max_new_tokens lower, a smaller task.max_source_tokens, or a smaller model."
                ) from error
        search = None  # and what it keeps
        if weights.flat:  # packed weights give way first
            weights = NONE
            with inside(pretrained, precision):
                weights = stand_ins(pretrained, precision)
        release(pretrained.model.device)


@contextmanager
def inside(pretrained: Pretrained, precision: torch.dtype) -> Iterator[None]:
    """Get the model ready to write inside the block, and leave it as it was: others may use it between two texts."""
    model = pretrained.model
    training, own = model.training, model.generation_config
    model.eval()
    try:
        # what a configuration leaves open is open: no setting of the model's own, nor a stop string, gets in
        model.generation_config = GenerationConfig()
        with signals.deferred(), torch.no_grad(), computing(model, precision):
            yield
    finally:
        model.generation_config = own
        model.train(training)


def own_search(
    pretrained: Pretrained,
    config: GenerationConfig,
    waiting: Sequence[tuple[int, Sequence[int]]],
    rows: int,
    seed: int,
    flat: Flat | None = None,
) -> Search | BeamSearch:
    """Return our own search for a text after each of `waiting` (its place and source), longest source first. flat: a decoder's layers."""
    model, beams, rows = pretrained.model, config.num_beams, min(rows, len(waiting))
    longest, limit = len(waiting[0][1]), config.max_new_tokens
    if pretrained.family is Family.encoder_decoder:
        start = config.decoder_start_token_id
        writer: Writer = Pairs(model, rows, limit, start, config.pad_token_id, beams)
        given = [[start] for _ in waiting]
    else:
        given = [list(source) for _, source in waiting]
        writer = Prompts(model, rows, longest, limit, beams, shared_start(given), flat)
    texts = [
        (Text(place, before, numbers(seed, place, limit) if config.do_sample else ()), source)
        for (place, source), before in zip(waiting, given, strict=True)
    ]
    return (BeamSearch if beams > 1 else Search)(writer, config, texts, rows, model.device)


def shared_start(prompts: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return the tokens that all prompts begin with, short of the last of the shortest: each has one of its own to read."""
    ordered = sorted(list(prompt) for prompt in prompts)
    first, last = ordered[0], ordered[-1]  # all others lie between them in alphabetical order
    length = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: min(length, min(len(prompt) for prompt in prompts) - 1)] if len(prompts) > 1 else []


def numbers(seed: int, place: int, count: int) -> list[float]:
    """Return the numbers that the tokens of one text are drawn by."""
    return np.random.default_rng([seed, place]).random(count).tolist()


def until_end(ids: list[int], config: GenerationConfig) -> Continuation:
    """Cut a row at its first end token. What follows is padding, which may be the end token itself.

    An end token that BART's or Marian's configuration forces into the last place says nothing: the text was cut there.
    """
    limit = config.max_new_tokens - (config.forced_bos_token_id is not None)
    for position, token in enumerate(ids):
        if token in config.eos_token_id:
            cut = config.forced_eos_token_id is not None and position == limit - 1
            return Continuation(ids[:position], "length" if cut else "stop")
    return Continuation(ids, "length")
