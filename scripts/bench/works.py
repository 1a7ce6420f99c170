"""What is measured: pieces of work, and the contestants that do each of them."""

from dataclasses import dataclass, field, replace
from enum import Enum

SEED = 42
LORA_RANK = 16


class Kind(Enum):
    """What a row is to the model: prompt then answer; source and target; a text with a class."""

    decoder = "decoder"
    pair = "pair"
    label = "label"


@dataclass(frozen=True)
class Tuning:
    """How a peer is set up. Everything that decides the result is the work's, so none of it is here but `dtype`.

    micro x accumulate rows are one optimizer step. dtype: fp32; autocast: fp32 weights under bf16 autocast; bf16: the weights
    too. order: given, the rows as llmft takes them; sorted, the same rows in each step by length; grouped, the peer's own
    group_by_length over the whole epoch. plain: what is not set here is left at the peer's defaults.
    """

    micro: int
    accumulate: int
    dtype: str = "fp32"
    order: str = "given"
    padding_free: bool = False
    plain: bool = False

    def named(self) -> str:
        """Return the setting in a few words."""
        words = [f"{self.micro} x {self.accumulate}", self.dtype]
        words += [self.order] if self.order != "given" else []
        return ", ".join(words + ["padding-free"] * self.padding_free)


@dataclass(frozen=True)
class Contestant:
    """One that does the work: `tool` is llmft, trainer, trl or generate.

    grid: the tunings of which the fastest is taken, by a run each; one alone is taken as it is. settings: further words of
    llmft's command line. needs_bf16: left out where the processor does not compute in bf16.
    """

    name: str
    tool: str
    grid: tuple[Tuning, ...] = ()
    settings: tuple[str, ...] = ()
    needs_bf16: bool = False


@dataclass(frozen=True)
class Work:
    """A piece of work: `rows` of a file of that name, `steps` optimizer steps of `batch_size` of them each."""

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
    settings: tuple[str, ...] = field(default=())

    @property
    def num_rows(self) -> int:
        """Rows of the training file."""
        return self.steps * self.batch_size // self.epochs


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
SUMMARIES = ("task=summarization",)


def works(bf16: bool) -> tuple[Work, ...]:
    """Return all pieces of work for a processor that computes in bf16, or does not."""
    frozen = ("bf16", "fp32") if bf16 else ("fp32",)
    masters = ("autocast", "fp32") if bf16 else ("fp32",)
    lora = Work(
        "lora",
        "LoRA r=16 on all linear layers, SmolLM2-135M",
        Kind.decoder,
        "smollm2-135m",
        "summaries",
        steps=4,
        batch_size=8,
        lr=2e-4,
        lora=True,
        settings=SUMMARIES,
        contestants=(
            LLMFT,
            Contestant("Trainer, best-tuned", "trainer", grid(8, frozen)),
            Contestant("Trainer, defaults", "trainer", (Tuning(8, 1, plain=True),)),
            Contestant("TRL, best-tuned", "trl", (*grid(8, frozen), Tuning(8, 1, frozen[0], padding_free=True))),
            Contestant("TRL, defaults", "trl", (Tuning(8, 1, plain=True),)),
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
        title="Greedy generation of up to 32 tokens, SmolLM2-135M, batches of 16",
        lora=False,
        steps=1,
        batch_size=48,
        contestants=(
            LLMFT,
            Contestant("generate, sorted by length", "generate", (Tuning(16, 1, order="sorted"),)),
            Contestant("generate, order of the file", "generate", (Tuning(16, 1),)),
        ),
    )
    return (lora, full, t5, marian, encoder, generation, shared)
