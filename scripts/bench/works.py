"""What is measured: pieces of work, and the contestants that do each of them."""

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

SEED = 42
LORA_RANK = 16
RECIPE = 2
"""Raised when rows or models are made differently."""


class Kind(Enum):
    """What a row is to the model: prompt then answer; source and target; a text with a class; a prompt to go on with."""

    decoder = "decoder"
    pair = "pair"
    label = "label"
    generation = "generation"


@dataclass(frozen=True)
class Tuning:
    """How a peer is set up. Everything that decides the result is the work's, so none of it is here but `dtype`.

    micro x accumulate rows are one optimizer step. dtype: fp32; autocast: fp32 weights under bf16 autocast; bf16: the weights
    too. order: given, the rows as llmft takes them; sorted, the same rows in each step by length; grouped, by length over the
    whole epoch, as group_by_length does with many rows (with few, its sampler hardly groups). plain: what is not set here is left at the peer's defaults.
    """

    micro: int
    accumulate: int
    dtype: str = "fp32"
    order: str = "given"
    padding_free: bool = False
    plain: bool = False

    def named(self) -> str:
        """Return the setting in a few words."""
        words = [f"{self.micro} x {self.accumulate}"] + [self.dtype] * (not self.plain)
        words += [self.order] if self.order != "given" else []
        return ", ".join(words + ["padding-free"] * self.padding_free)


@dataclass(frozen=True)
class Contestant:
    """One that does the work: `tool` is llmft, trainer, trl or generate.

    grid: the tunings of which the fastest is taken; one alone is taken as it is. settings: further words of
    llmft's command line. needs_bf16: left out where the processor does not compute in bf16.
    """

    name: str
    tool: str
    grid: tuple[Tuning, ...] = ()
    settings: tuple[str, ...] = ()
    needs_bf16: bool = False


@dataclass(frozen=True)
class Work:
    """A piece of work: `steps` optimizer steps of `batch_size` rows each, of the set named `rows`.

    words: length of a document where the rows are pieces of text; num_rows: rows of the training file, None: as many as are
    trained on; clustered: the rows are batches of similar length from a larger set, so that grouping by length pads as little as
    it does there; cold: nothing is in llmft's cache yet, so that its preparation is measured too.
    """

    name: str
    title: str
    kind: Kind
    model: str
    rows: str
    steps: int
    batch_size: int
    lr: float
    contestants: tuple[Contestant, ...]
    lora: bool = False
    epochs: int = 1
    settings: tuple[str, ...] = ()
    words: int = 0
    num_rows: int | None = None
    clustered: bool = False
    cold: bool = False

    @property
    def size(self) -> int:
        """Rows of the training file."""
        return self.num_rows or self.steps * self.batch_size // self.epochs

    @property
    def recipe(self) -> str:
        """What its rows and tokens depend on, beside Python's version and these scripts."""
        return f"{self.model} {self.kind.value} {self.rows} {self.size} {self.words} {self.steps} {self.batch_size} {SEED} v{RECIPE}"

    def made(self, folder: Path) -> bool:
        """Whether its rows, tokens and model are there."""
        path = folder / f"{self.name}.recipe"
        return path.exists() and path.read_text(encoding="utf-8") == self.recipe and (folder / "models" / self.model).is_dir()


def grid(total: int, dtypes: tuple[str, ...], grouped: bool = False) -> tuple[Tuning, ...]:
    """Return the tunings tried for a step of `total` rows: micro-batches without padding, then sorted ones of growing size."""
    found = []
    for dtype in dtypes:
        found.append(Tuning(1, total, dtype))
        found += [Tuning(micro, total // micro, dtype, "sorted") for micro in (2, 4)]
        if grouped:
            found += [Tuning(micro, total // micro, dtype, "grouped") for micro in (total // 4, total // 2, total)]
    return tuple(found)


LLMFT = Contestant("llmft", "llmft")
BATCHES_OF_TEXTS = (2, 4, 8, 16, 24, 32)
SUMMARIES = ("task=summarization",)
WHOLE_SUMMARIES = (*SUMMARIES, "task.max_source_tokens=null")  # what is longer than usual is not cut


def works(bf16: bool) -> tuple[Work, ...]:
    """Return all pieces of work for a processor that computes in bf16, or does not."""
    frozen = ("bf16", "fp32") if bf16 else ("fp32",)
    masters = ("autocast", "fp32") if bf16 else ("fp32",)
    lora = Work(
        "lora",
        "LoRA r=16 on all linear layers, SmolLM2-135M",
        Kind.decoder,
        "smollm2-135m",
        "varied",
        steps=4,
        batch_size=8,
        lr=2e-4,
        lora=True,
        settings=WHOLE_SUMMARIES,
        contestants=(
            LLMFT,
            Contestant("Trainer, best-tuned", "trainer", grid(8, frozen)),
            Contestant("Trainer, defaults", "trainer", (Tuning(8, 1, plain=True),)),
            Contestant("TRL, best-tuned", "trl", (*grid(8, frozen), Tuning(8, 1, frozen[0], padding_free=True))),
            Contestant("TRL, defaults", "trl", (Tuning(8, 1, "autocast", plain=True),)),
        ),
    )
    full = replace(
        lora,
        name="full",
        title="Full fine-tuning, SmolLM2-135M",
        lora=False,
        lr=2e-5,
        contestants=(
            LLMFT,
            Contestant("Trainer, best-tuned, same numerics", "trainer", grid(8, masters)),
            Contestant("Trainer, best-tuned, pure bf16", "trainer", grid(8, ("bf16",)), needs_bf16=True),
            Contestant("Trainer, defaults", "trainer", (Tuning(8, 1, plain=True),)),
        ),
    )
    pairs = (
        LLMFT,
        Contestant("Seq2SeqTrainer, best-tuned", "trainer", grid(16, masters, grouped=True)),
        Contestant("Seq2SeqTrainer, defaults", "trainer", (Tuning(16, 1, plain=True),)),
    )
    t5 = replace(
        full,
        name="t5",
        title="Full fine-tuning, encoder-decoder of T5-small's size",
        kind=Kind.pair,
        rows="summaries",
        clustered=True,
        settings=SUMMARIES,
        model="t5",
        steps=6,
        batch_size=16,
        lr=1e-4,
        contestants=pairs,
    )
    encoder = replace(
        t5,
        name="encoder",
        title="Full fine-tuning, 6-layer MiniLM encoder, classification",
        kind=Kind.label,
        model="minilm",
        rows="topics",
        batch_size=32,
        lr=5e-5,
        settings=("task=classification",),
        contestants=(
            LLMFT,
            Contestant("Trainer, best-tuned", "trainer", grid(32, masters, grouped=True)),
            Contestant("Trainer, defaults", "trainer", (Tuning(32, 1, plain=True),)),
        ),
    )
    shared = replace(
        lora,
        name="shared",
        title="Five questions on one context, generative QA, LoRA, SmolLM2-135M",
        rows="questions",
        batch_size=20,
        epochs=4,
        settings=(
            "task=question_answering",
            "task.row=null",
            "task.target={answer}",
        ),
        contestants=(LLMFT,),
    )
    marian = replace(t5, name="marian", title="Full fine-tuning, encoder-decoder of an OPUS-MT model's size", model="marian")
    generation = replace(
        lora,
        name="generation",
        title="Greedy generation of up to 32 tokens, SmolLM2-135M",
        kind=Kind.generation,
        lora=False,
        steps=1,
        batch_size=48,
        contestants=(
            LLMFT,
            Contestant(
                "generate, sorted by length",
                "generate",
                tuple(Tuning(rows, 1, frozen[0], "sorted") for rows in BATCHES_OF_TEXTS),
            ),
            Contestant(
                "generate, order of the file", "generate", tuple(Tuning(rows, 1, frozen[0]) for rows in BATCHES_OF_TEXTS)
            ),
        ),
    )
    return (lora, full, t5, marian, encoder, generation, shared)


LENGTHS = (32, 64, 128, 256, 512)
BATCHES = (2, 4, 8, 16, 32)
WIDTHS = (128, 256, 384, 576)
ROWS = (1_000, 10_000, 100_000)
MILLION = 1_000_000
"""Documents in words, rows of a step, widths of a Llama of four layers, rows of a training file."""


def growth(bf16: bool) -> tuple[Work, ...]:
    """Return works that differ in one size each: full fine-tuning of small random Llamas on pieces of text."""
    dtype = "autocast" if bf16 else "fp32"

    def sized(name: str, words: int = 96, batch: int = 8, width: int = 256) -> Work:
        trainer = Contestant("Trainer", "trainer", (Tuning(min(batch, 8), max(1, batch // 8), dtype),))
        return Work(
            name,
            name,
            Kind.decoder,
            f"llama-{width}",
            "pieces",
            steps=4,
            batch_size=batch,
            lr=1e-4,
            contestants=(LLMFT, trainer),
            settings=WHOLE_SUMMARIES,
            words=words,
        )

    found = [sized(f"length-{words}", words=words) for words in LENGTHS]
    found += [sized(f"batch-{batch}", batch=batch) for batch in BATCHES]
    found += [sized(f"model-{width}", width=width) for width in WIDTHS]
    return (*found, *(of_rows(rows) for rows in ROWS))


def of_rows(rows: int) -> Work:
    """Return a work of few steps on a file of many rows, none of them tokenised yet."""
    return Work(
        f"rows-{rows}",
        f"rows-{rows}",
        Kind.decoder,
        "llama-128",
        "pieces",
        steps=3,
        batch_size=8,
        lr=1e-4,
        contestants=(LLMFT,),
        settings=(*SUMMARIES, "training.max_steps=3"),
        words=16,
        num_rows=rows,
        cold=True,
    )


def every_work(bf16: bool) -> tuple[Work, ...]:
    """Return all that can be measured."""
    return (*works(bf16), *growth(bf16), of_rows(MILLION))
