"""Every setting of llmft: one dataclass per conf/ group, one root dataclass per command.

Defaults live here; YAML says what differs. The help texts are read from the docstrings below, so each says what the
field means, its unit, and what null means. No imports from the rest of llmft, no code: values only.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


class Formulation(Enum):
    """How a task becomes a loss and a prediction."""

    text_to_text = "text_to_text"
    span = "span"
    label = "label"
    language_model = "language_model"


class TextBy(Enum):
    """What one row of a plain text file is; paragraphs are apart by blank lines."""

    line = "line"
    paragraph = "paragraph"
    document = "document"


class LossOn(Enum):
    """Which assistant turns of a conversation are learnt."""

    all = "all"
    last = "last"


class LabelKind(Enum):
    """single: one of several classes; multi: any number of them; value: a number (regression)."""

    single = "single"
    multi = "multi"
    value = "value"


class Truncation(Enum):
    """What happens to a source longer than `task.max_source_tokens`. A target is never cut."""

    end = "end"
    start = "start"
    error = "error"


class ControlTokens(Enum):
    """What <|im_end|>, </s> and their like stand for in the texts of rows."""

    text = "text"
    token = "token"


class Dtype(Enum):
    """Number format of the weights in memory; auto: float32 where trained, the compute precision where frozen."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class AdapterKind(Enum):
    """none: train all weights; lora: low-rank updates of the linear layers (Hu et al. 2021, arXiv:2106.09685)."""

    none = "none"
    lora = "lora"


class Device(Enum):
    """Where tensors live; auto: a GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Enum):
    """Number format of the arithmetic; auto: bf16 where the hardware computes in it, else fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Fast(Enum):
    """auto: documents of a batch share one forward pass where that is proven equal; off: one document at a time."""

    auto = "auto"
    off = "off"


class Shuffle(Enum):
    """rows: in an order of their own every epoch; texts: those that begin alike stay together, at most a batch of them."""

    rows = "rows"
    texts = "texts"


class Split(Enum):
    """A part of the data."""

    train = "train"
    validation = "validation"
    test = "test"


@dataclass
class Data:
    """Where the rows come from. With nothing named, the task's built-in set."""

    train: Any = None
    """Training rows: a file, a list of files (jsonl, json, csv, tsv, parquet, arrow, txt), a save_to_disk folder, a hub id (owner/name, or owner/name[split]), or parallel text files, {column: file, ...}; null: the built-in set."""
    validation: Any = None
    """Validation rows, as `train`; null: the data set's own split, else `holdout` rows taken from training."""
    test: Any = None
    """Test rows, as `train`; null: the data set's own split, else `holdout` rows taken from training."""
    builtin: str | None = None
    """Built-in set used when `train` is null."""
    subset: str | None = None
    """Configuration name of a hub data set."""
    revision: str | None = None
    """Commit or tag of a hub data set; null: the newest."""
    rows_under: str | None = None
    """Key under which a JSON file keeps its list of rows; null: the file is a list, or has just one list."""
    columns: list[str] = field(default_factory=list)
    """Names of the columns of CSV and TSV files without a header line, and of txt files that hold such a table; empty: the first line has them."""
    text_by: TextBy = TextBy.line
    """What one row of a plain text file is, in the column `text`."""
    holdout: float = 0.05
    """Share of the training rows set aside for each of validation and test that is not named; chosen by content, so equal rows stay together."""
    max_train: int | None = None
    """Use only the first rows of this split; null: all."""
    max_validation: int | None = None
    """Use only the first rows of this split; null: all."""
    max_test: int | None = None
    """Use only the first rows of this split; null: all."""
    max_bad_rows: int = 0
    """How many rows of a split that cannot be read or used may be left out, each counted and listed in data.json; one more stops the run."""


@dataclass
class Task:
    """What is learnt and how it is scored."""

    name: str | None = None
    """Short name, part of the run directory's name."""
    version: int = 1
    """Raised when scores of this task change meaning; recorded with every score."""
    formulation: Formulation = Formulation.text_to_text
    """How rows become a loss and a prediction."""
    data: Data = field(default_factory=Data)
    """Where the rows come from."""
    source: str = "{source}"
    """Input text of a row, as a template over its columns: "{article}"; for span the question, for language_model the text."""
    context: str | None = None
    """Template of a text read together with the source: the passage a question is about, the second text of a pair; null: none."""
    target: str = "{target}"
    """Output text, label or answers of a row, as a template over its columns; a column that is a list gives several references, the first is trained on."""
    references: Any = None
    """Template for the reference texts where they differ from `target`, or a list of templates; null: the target."""
    answer_start: str | None = None
    """Column of the answers' places in the context, in characters; null, or a row without: the first place where the answer stands (span)."""
    messages: str | None = None
    """Column that holds a conversation, openai or sharegpt style; it takes the place of source and target; null: none."""
    loss_on: LossOn = LossOn.all
    """Which assistant turns of a conversation are learnt."""
    prompt: str = "{source}"
    """What a decoder model is asked, around the {source} and, if there is one, the {context}; goes into the model's chat template if it has one."""
    encoder_prompt: str | None = None
    """What an encoder-decoder reads, around the {source} and, if there is one, the {context}: "summarize: {source}"; null: the prefix that the model's configuration has for this task (T5), and the source."""
    system: str | None = None
    """System message for chat models; null: what the chat template writes by itself."""
    source_language: str | None = None
    """Language of the source, "en" or the model's own code, for models that are told (mBART, NLLB); null: not told."""
    target_language: str | None = None
    """Language of the target, likewise; it also chooses the tokenizer that scores read texts with; null: not told."""
    labels: list[str] = field(default_factory=list)
    """Names of the classes in their order; empty: those of the training rows, sorted."""
    label_kind: LabelKind = LabelKind.single
    """Whether a row has one label, several, or a number."""
    no_answer: bool = False
    """Whether a question may have no answer in its context, as in SQuAD 2.0 (span)."""
    max_answer_tokens: int = 30
    """Longest answer cut from a context, in tokens (span)."""
    row: str | None = None
    """squad, alpaca, or the dotted name of a function (row -> row, list of rows, or null to leave it out) for what a template cannot say."""
    max_source_tokens: int | None = None
    """Longest source in tokens, template not counted; for span and language_model the length of a window; null: what fits the model's context."""
    overlap: int = 0
    """Tokens that neighbouring windows of a long text have in common (span, language_model); the stride is the window less this."""
    max_target_tokens: int | None = None
    """Longest target in tokens; rows above it are left out of training and counted, never cut; null: what fits."""
    truncation: Truncation = Truncation.end
    """Which end of a too long source is cut, or error."""
    control_tokens: ControlTokens = ControlTokens.text
    """How a model's control tokens (<|im_end|>, </s>) in the texts of rows are read: text: spelt out like any text, so that no row can open or end a turn; token: as the tokens, for rows that bring them on purpose."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores to compute: name -> options; an own one: {mine: {call: package.function, ...}} with the package in `plugins`."""
    baselines: list[str] = field(default_factory=list)
    """Trivial answers scored beside the model: lead_1 (first sentence of the source), copy_source, no_answer, whole_context (all of the context), or dotted names of functions (example) -> text."""


@dataclass
class Model:
    """The pretrained model to start from."""

    name: str = MISSING
    """Local folder or hub id; with `scratch`, a name for the new model."""
    scratch: dict[str, Any] = field(default_factory=dict)
    """Sizes of a Transformer made from random weights, with a tokenizer trained on the training rows: d_model, layers, heads, ffn, dropout, vocab_size; empty: pretrained weights."""
    revision: str | None = None
    """Commit or tag on the hub; null: the newest."""
    sha256: str | None = None
    """Hash of the files that decide what the model is, as a run records it and rerun.yaml asks for it; with other files nothing starts. null: not checked."""
    convert_pickle: bool = False
    """Convert weights that are pickled (pytorch_model.bin) to safetensors, in a process that can run no code of theirs; false: refuse them."""
    trust_remote_code: bool = False
    """Run the Python that comes with a model of the hub. On the command line alone, in no file, and with `revision` set to a full commit, so that it is the code that was read."""
    dtype: Dtype = Dtype.auto
    """Number format of the weights in memory."""
    package: str | None = None
    """Installed Python package that carries the weights; looked at before the hub, unless `revision` is set."""
    package_file: str | None = None
    """Name of the GGUF file or folder inside `package`. A file is named as the last part of `name`, its quantisation behind it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, much less memory."""


@dataclass
class Adapter:
    """Which weights are trained."""

    name: AdapterKind = AdapterKind.none
    """none: all weights; lora: low-rank updates."""
    r: int = 16
    """Rank of the update."""
    alpha: float = 32.0
    """The update is scaled by alpha / r."""
    dropout: float = 0.0
    """Dropout on the adapter's input, in training; adapters that read the same drop the same, where layers are written out."""
    target_modules: Any = "all-linear"
    """Names of the layers that get an adapter, or all-linear."""
    modules_to_save: list[str] = field(default_factory=list)
    """Layers trained in full beside the adapter, such as embed_tokens."""
    frozen_layers: int = 0
    """Lowest layers (an encoder-decoder's: of its encoder) that stay as they are, and the embeddings with them: not trained, and without adapters. Over two epochs or more, decoders like Llama and encoders like BERT compute them once for each document on a processor."""


@dataclass
class Optimizer:
    """How gradients change weights."""

    name: str = "adamw"
    """adamw, adafactor, sgd, muon, or the dotted name of a function (params, lr, weight_decay, ...) -> Optimizer."""
    lr: float = 2e-4
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Decoupled weight decay; norms and biases get none."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this L2 norm; null: never."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimizer, such as betas or momentum."""


@dataclass
class Schedule:
    """How the learning rate moves over the run."""

    name: str = "linear"
    """constant, linear, cosine, wsd (warm-up, stable, decay), or the dotted name of a function (progress, ...) -> factor."""
    warmup: float = 0.03
    """Steps of linear warm-up; below 1: a share of all steps."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the schedule, such as floor or decay."""


@dataclass
class Training:
    """How long to train and how often to look up."""

    epochs: float = 3.0
    """Passes over the training rows."""
    max_steps: int | None = None
    """Optimizer steps; null: as many as `epochs` make."""
    batch_size: int = 8
    """Examples per optimizer step, over all micro-batches and ranks."""
    shuffle: Shuffle = Shuffle.rows
    """Whether rows are shuffled one by one, or those on the same text together, such as questions on one article: a decoder on a processor then computes the text once for all of a step's rows. Steps see fewer texts, so the result is another."""
    micro_tokens: int | None = None
    """Memory budget of one micro-batch, in tokens; null: planned from the model and the machine. Does not change the result."""
    eval_every: str = "1 epoch"
    """How often to validate: "200" or "200 steps", "0.5 epochs", or "never"."""
    eval_generate: bool = False
    """Generate and score the validation rows at each validation too, not only their loss; always on when `metric` is a score."""
    save_every: str = "100 steps"
    """How often to write a checkpoint, as `eval_every`; one is written at the end and on a signal in any case."""
    async_save: bool = False
    """Write checkpoints beside the training, from a copy of weights and optimizer in memory, instead of waiting for the disk."""
    keep: int = 2
    """Newest checkpoints kept; the best one, and what they name as the best before it, are kept besides."""
    patience: int | None = None
    """Stop after this many validations without improvement; null: run all steps."""
    metric: str = "loss"
    """What decides on the best checkpoint and on patience: loss, or a score of the task such as rougeL."""
    baseline: bool = True
    """Score the untuned model too, so that the report says what tuning changed."""
    log_every: int = 1
    """Steps between rows of metrics.jsonl."""
    resume: str = "auto"
    """auto: go on with the newest stopped or dead run of the same configuration; never: start anew; or a run directory."""
    skip_spikes: float | None = None
    """Leave out the update of a step whose gradient norm exceeds this many times the median of the newest 64, and count it; null: leave out none. Eight in a row end the run, and so does a norm that is not finite."""
    fast: Fast = Fast.auto
    """Whether several documents may share one forward pass; does not change the result."""


@dataclass
class Generation:
    """How predictions are decoded."""

    max_new_tokens: int = 64
    """Longest prediction, in tokens."""
    num_beams: int = 1
    """Beams kept in beam search; 1: greedy, or sampling when `temperature` is above 0."""
    temperature: float = 0.0
    """Randomness of sampling; 0: always the most probable token."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this total probability."""
    top_k: int | None = None
    """Sample from this many most probable tokens; null: all."""
    repetition_penalty: float = 1.0
    """Above 1: tokens already written become less probable (Keskar et al. 2019, arXiv:1909.05858)."""
    no_repeat_ngram_size: int = 0
    """No n-gram of this size is written twice; 0: no limit."""
    length_penalty: float = 1.0
    """In beam search a text's log-probability is divided by its length to this power: above 1 favours long texts."""
    batch_size: int = 64
    """Texts read or written side by side; half as many where memory runs out while they are written.

    Does not change the result, to rounding, but for texts that are sampled: which are drawn.
    """


@dataclass
class Hardware:
    """What the run computes on."""

    device: Device = Device.auto
    """Where tensors live."""
    precision: Precision = Precision.auto
    """Number format of the arithmetic; trained weights stay float32."""
    threads: int | None = None
    """CPU threads; null: torch's choice."""
    deterministic: bool = True
    """Only kernels that give the same bits every time."""


@dataclass
class Export:
    """What the final model folder holds."""

    merge: bool = False
    """Fold a LoRA adapter into the weights, so that the folder is a whole model; false: the adapter alone."""


@dataclass
class Gate:
    """Limits that a score has to keep; one missed ends the command with exit code 3."""

    min: dict[str, float] = field(default_factory=dict)
    """Score -> lowest allowed value: gate.min.rougeL=30."""
    max: dict[str, float] = field(default_factory=dict)
    """Score -> highest allowed value: gate.max.loss=2.5."""
    baseline: str | None = None
    """Run directory to compare with, under max_drop."""
    max_drop: dict[str, float] = field(default_factory=dict)
    """Score -> how far it may fall below the same score of `baseline`."""


@dataclass
class TrainRun:
    """Fine-tune a model on a task."""

    task: Task = field(default_factory=Task)
    model: Model = field(default_factory=Model)
    adapter: Adapter = field(default_factory=Adapter)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    training: Training = field(default_factory=Training)
    generation: Generation = field(default_factory=Generation)
    hardware: Hardware = field(default_factory=Hardware)
    export: Export = field(default_factory=Export)
    gate: Gate = field(default_factory=Gate)
    plugins: list[str] = field(default_factory=list)
    """Installed packages from which dotted names may be imported."""
    seed: int = 42
    """Seed of everything random: order, dropout, adapter, sampling, bootstrap."""
    output_root: str = "outputs"
    """Folder of the run directories."""
    output_dir: str | None = None
    """Run directory; null: a new one under `output_root`."""


@dataclass
class EvalRun:
    """Score a finished run, or a plain model."""

    run: str | None = None
    """Run directory, or latest; its settings are the starting point. null: a plain model, with model and task named."""
    split: Split = Split.test
    """Which part of the data to score."""
    predictions: str | None = None
    """File of predictions to score without a model: as `predict` writes it, or a text a line; null: predict them."""
    references: str | None = None
    """File of the rows that `predictions` belong to; null: the split's rows."""
    output: str | None = None
    """Folder for the results; null: RUN/eval/<split>-<time>, or a new run directory under `output_root`."""
    task: Task = field(default_factory=Task)
    model: Model = field(default_factory=Model)
    generation: Generation = field(default_factory=Generation)
    hardware: Hardware = field(default_factory=Hardware)
    gate: Gate = field(default_factory=Gate)
    plugins: list[str] = field(default_factory=list)
    """Installed packages from which dotted names may be imported."""
    seed: int = 42
    """Seed of sampling and bootstrap."""
    output_root: str = "outputs"
    """Folder of the run directories."""


@dataclass
class PredictRun:
    """Run a model over a file, or stdin to stdout."""

    run: str | None = None
    """Run directory, or latest; its settings are the starting point. null: a plain model, with model and task named."""
    input: str = "-"
    """File of inputs (jsonl, csv, tsv, txt with one text a line), or - for stdin, one text or JSON object a line."""
    output: str | None = None
    """File of predictions (jsonl, csv, txt by its ending), or - for stdout; null: RUN/predict/<time>/predictions.jsonl, or stdout for stdin."""
    task: Task = field(default_factory=Task)
    model: Model = field(default_factory=Model)
    generation: Generation = field(default_factory=Generation)
    hardware: Hardware = field(default_factory=Hardware)
    plugins: list[str] = field(default_factory=list)
    """Installed packages from which dotted names may be imported."""
    seed: int = 42
    """Seed of sampling."""
    output_root: str = "outputs"
    """Folder of the run directories."""
