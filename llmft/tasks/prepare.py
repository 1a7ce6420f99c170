"""From rows to what training reads: token caches, examples to score, and the plan."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmft.config.schema import Fast, Shuffle, TrainRun, Truncation
from llmft.data.dataset import RowSource
from llmft.data.encode import cache_key
from llmft.data.example import Example
from llmft.data.order import Order
from llmft.data.spool import cached
from llmft.errors import DataError
from llmft.hardware.memory import available_bytes
from llmft.models.family import Family
from llmft.models.forward import Path
from llmft.models.frozen import States
from llmft.models.head import Head
from llmft.models.load import panics_explained
from llmft.models.path_check import PathCheck
from llmft.reports.console import say
from llmft.runs.cache import cache_dir
from llmft.runs.provenance import hash_folder
from llmft.tasks.encodings import Encodings
from llmft.tasks.formulation import Learner
from llmft.tasks.review import Review, read_settings
from llmft.tasks.tried import fitting_as_before
from llmft.training import memory
from llmft.training.memory import Plan
from llmft.training.pace import count_steps

TOKENIZER_FILES = ("token*", "vocab*", "merges*", "special*", "added*", "chat_template*", "*.model", "*.spm", "*.jinja")
LOOKED_AT = 1 << 16  # documents whose lengths are sorted at a time
PAYING_PASSES = (
    2  # over the rows: the first takes longer, by up to a half, since each document is computed alone; the others half
)
CHECKED_ROWS = 2  # documents on which the fast path is compared with the plain one


@dataclass(frozen=True)
class Corpus:
    """The data of a run: what is trained on, what validates, and the examples that are generated for and scored."""

    train: Encodings
    validation: Encodings | None
    validation_examples: list[Example]
    """Empty unless the validation is scored."""
    test_examples: list[Example]
    test_content: str
    """Hash of the test rows; empty without any."""
    audit: dict[str, Any]
    """What `Audit` found in all splits."""


def prepare_corpus(learner: Learner, splits: Mapping[str, RowSource], score_validation: bool = False) -> Corpus:
    """Tokenise training and validation rows into the cache, read the examples to score, and look at all of them on the way.

    What was tokenised and looked at before is not read again. Raises DataError where no training row is left.
    """
    review = Review(learner, splits)
    review.first("train")
    tests = list(review.examples("test")) if "test" in splits else []
    if tests and learner.formulation.task.truncation is Truncation.error:
        encode_split(learner, splits["test"], tests)  # what is too long is an error now, not after the training
    scored = list(review.examples("validation")) if "validation" in splits and score_validation else []
    validation = (
        encode_split(learner, splits["validation"], scored or review.examples("validation")) if "validation" in splits else None
    )
    train = encode_split(learner, splits["train"], review.examples("train"))
    if not len(train.rows):
        found = f"{len(train.cache)} rows, all of them with targets too long" if len(train.cache) else "no rows"
        if places := [train.cache[place].where for place in range(min(3, len(train.cache)))]:
            found += f" ({', '.join(places)}{', ...' if len(train.cache) > 3 else ''})"
        raise DataError(
            f"{splits['train'].description}: {found}; nothing to train on. Look at task.max_target_tokens and the data."
        )
    return Corpus(
        train,
        validation if validation is not None and len(validation.rows) else None,
        scored,
        tests,
        splits["test"].content if "test" in splits else "",
        review.found(),
    )


def encode_split(learner: Learner, source: RowSource, examples: Iterable[Example] | None = None) -> Encodings:
    """Tokenise the examples of a split (None: as its rows make them), or find them tokenised.

    The key holds everything that token ids depend on.
    """
    key = cache_key(
        rows=source.content,
        task=read_settings(learner),
        learner=type(learner).__name__,
        encoding=learner.encoding(),
        tokenizer=hash_folder(learner.pretrained.folder, TOKENIZER_FILES),
    )
    with panics_explained(learner.pretrained.folder):
        examples = learner.formulation.examples(source) if examples is None else examples
        cache = cached(cache_dir() / "tokens", key, examples, learner.encode, learner.ahead)
    return Encodings(cache, cache.rows_with_loss())


def check_path(run: TrainRun, learner: Learner, corpus: Corpus) -> PathCheck:
    """Compare the fast with the plain path on short documents, which are as telling as long ones, of two lengths if there are."""
    if run.training.fast is Fast.off:
        return PathCheck(False, "training.fast=off")
    lengths = corpus.train.lengths
    some = telling(lengths, CHECKED_ROWS)
    ranked = some[np.argsort(lengths[some], kind="stable")]
    longer = ranked[lengths[ranked] > lengths[ranked[0]]]  # beside it, the shortest is padded where anything is
    chosen = [ranked[0], *(longer if len(longer) else ranked[1:])[: CHECKED_ROWS - 1]]
    return learner.check_fast_path(corpus.train.documents([int(place) for place in chosen]))


def keep_states(run: TrainRun, learner: Learner, passes: float) -> None:
    """Have what frozen layers make of documents kept, where that gains: where documents come again, and are the same then.

    Not for what an encoder-decoder reads, whose embeddings are dropped at random; nor where documents on the same text share
    its computation, which saves the layers above as well.
    """
    pretrained = learner.pretrained
    frozen, base = pretrained.frozen, pretrained.model.base_model
    same = pretrained.head is not Head.masked  # of which other words are hidden each time
    same &= not hasattr(base, "embeddings_project")  # ELECTRA's product before its layers is one over all documents of a batch
    if frozen is None or run.training.fast is Fast.off or pretrained.model.device.type != "cpu":
        return
    if (
        passes >= PAYING_PASSES
        and same
        and pretrained.family is not Family.encoder_decoder
        and run.training.shuffle is not Shuffle.texts
    ):
        folder = cache_dir()
        spare = shutil.disk_usage(folder).free // 2
        frozen.states = States(folder, pretrained.model.config.hidden_size, learner.precision, spare)


def telling(lengths: np.ndarray, most: int) -> np.ndarray:
    """Return places of at most `most` documents of each length, the first ones: more make no other micro-batch of `most`.

    A million documents have some hundred lengths: what looks at these takes no more memory than for a thousand. Nor does this.
    """
    some = np.empty(0, np.int64)
    for start in range(0, len(lengths), LOOKED_AT):
        more = np.arange(start, min(start + LOOKED_AT, len(lengths)))
        some = first_of_each(lengths, np.concatenate([some, more]), most)
    return some


def first_of_each(lengths: np.ndarray, places: np.ndarray, most: int) -> np.ndarray:
    """Return those of `places`, which ascend, at which a document is among the first `most` of its length."""
    ranked = places[np.argsort(lengths[places], kind="stable")]
    sizes = lengths[ranked]
    kept = np.ones(len(ranked), np.bool_)
    kept[most:] = sizes[most:] != sizes[: len(sizes) - most] if most < len(sizes) else True
    return np.sort(ranked[kept])


def make_plan(run: TrainRun, learner: Learner, corpus: Corpus, order: Order, micro_tokens: int | None) -> Plan:
    """Say what is about to be done. Raises DoesNotFit if it cannot be done in the free memory."""
    model, device = learner.pretrained.model, learner.pretrained.model.device
    steps = count_steps(run.training, order.steps_per_epoch)
    passes = steps / order.steps_per_epoch
    keep_states(run, learner, passes)
    path = check_path(run, learner, corpus)
    if learner.pretrained.frozen is not None:
        learner.pretrained.frozen.states = None  # no other path reads them, and the check rounds weights in its own way
        if path.path is Path.flat:
            keep_states(run, learner, passes)
    lengths = corpus.train.lengths
    some = telling(lengths, run.training.batch_size)
    units, cut_rows, cut_tokens = corpus.train.cache.sums()
    parameters = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for _, weight in learner.pretrained.trained)
    weights, state = memory.state_bytes(learner.pretrained)
    per_token = memory.token_bytes(learner.pretrained, learner.precision, run.model.gradient_checkpointing)
    free = available_bytes(device)
    longest = int(lengths.max())
    wanted = min((tokens for tokens in (micro_tokens, run.training.micro_tokens) if tokens), default=None)
    kept = memory.token_bytes(learner.pretrained, learner.precision, checkpointing=False)
    paying = memory.paying_tokens(kept, trained / parameters, device)
    planned = memory.plan_micro_tokens(wanted, per_token, state, free, longest, paying)
    micro_tokens, taken = fitting_as_before(run, learner, path, corpus.train, some, planned, state, free)
    if micro_tokens < planned:
        say(f"{planned:,} tokens at once do not fit in memory, {micro_tokens:,} do; this does not change the result")
    learner.sharing = True
    return Plan(
        parameters=parameters,
        trained_parameters=trained,
        train_rows=len(lengths),
        left_out_rows=corpus.train.left_out,
        validation_rows=len(corpus.validation.rows) if corpus.validation else 0,
        test_rows=len(corpus.test_examples),
        tokens_per_epoch=int(lengths.sum()),
        loss_units_per_epoch=units,
        loss_unit=learner.unit,
        longest_row_tokens=longest,
        cut_rows=cut_rows,
        cut_tokens=cut_tokens,
        steps=steps,
        steps_per_epoch=order.steps_per_epoch,
        batch_size=run.training.batch_size,
        micro_tokens=micro_tokens,
        device=str(device),
        precision=str(learner.precision).removeprefix("torch."),
        fast_path=path.fast,
        fast_path_reason=path.reason,
        fast_path_loss_difference=path.relative_difference,
        fast_path_gradient_difference=path.gradient_difference,
        weights_bytes=weights,
        training_state_bytes=state,
        activation_bytes=min(micro_tokens, run.training.batch_size * longest) * per_token,
        trial_bytes=taken,
        free_bytes=free,
        frozen_layers=run.adapter.frozen_layers,
        frozen_states_kept=learner.pretrained.frozen is not None and learner.pretrained.frozen.states is not None,
    )
