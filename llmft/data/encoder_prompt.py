"""What an encoder-decoder reads and writes: the source in its prompt, the target by the tokenizer's rules for targets."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmft.config.schema import ControlTokens as Reading
from llmft.config.schema import Task
from llmft.data.ahead import Ahead
from llmft.data.control_tokens import ControlTokens
from llmft.data.prompt import filled
from llmft.errors import ModelError


@dataclass(frozen=True)
class EncoderPromptSettings:
    """What the encoder's input depends on beside the text; saved with the model as llmft.json."""

    encoder_prompt: str
    source_language: str | None
    target_language: str | None
    max_source_tokens: int | None
    truncation: str
    control_tokens: str

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


class EncoderPrompt:
    """Builds token ids from texts for one tokenizer and one task; languages are set on the tokenizer by whoever made it.

    Without task.encoder_prompt, T5's own prefix for the task, from its config.json, goes before the source.
    """

    def __init__(self, task: Task, tokenizer: Any, config: Any):
        self.tokenizer = tokenizer
        self.settings = EncoderPromptSettings(
            encoder_prompt=task.encoder_prompt if task.encoder_prompt is not None else own_prefix(task, config) + "{source}",
            source_language=task.source_language,
            target_language=task.target_language,
            max_source_tokens=task.max_source_tokens,
            truncation=task.truncation.value,
            control_tokens=task.control_tokens.value,
        )
        # how texts of rows are read by default, here and wherever they are counted and cut
        tokenizer.split_special_tokens = task.control_tokens is Reading.text
        self.special = ControlTokens(tokenizer)
        # as in Prompt: T5's <extra_id_0> in a setting is the token
        self.written = bool(self.special.pattern.search(self.settings.encoder_prompt))
        self.split = tokenizer.split_special_tokens and not self.written
        self.text_ids = Ahead(tokenizer, add_special_tokens=False)
        self.read_ids = Ahead(tokenizer, split_special_tokens=self.split)
        self.written_ids = Ahead(tokenizer, text="text_target")
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end token; set eos_token in its tokenizer_config.json")

    def ahead(self, asked: Iterable[tuple[str, str | None]], texts: Iterable[str], targets: Iterable[str]) -> None:
        """Tokenise in bulk what `prompt_ids` and `target_ids` will be asked for next, and texts that are counted."""
        self.text_ids.make(texts)
        self.written_ids.make(targets)
        self.read_ids.make(() if self.written else (filled(self.settings.encoder_prompt, *each) for each in asked))

    def prompt_ids(self, source: str, context: str | None = None) -> list[int]:
        """Return the encoder's token ids, with the special tokens that the tokenizer puts around a text."""
        if self.written and self.tokenizer.split_special_tokens:
            source, context = self.special.broken(source), None if context is None else self.special.broken(context)
        text = filled(self.settings.encoder_prompt, source, context)
        return self.read_ids(self.special.plain(text) if self.split else text)

    def target_ids(self, target: str) -> list[int]:
        """Return the decoder's token ids: a language's code where the model writes one, and the end token."""
        if self.tokenizer.split_special_tokens:
            target = self.special.plain(target)
        ids = self.written_ids(target)
        return ids if ids and self.tokenizer.eos_token_id in ids[-2:] else [*ids, self.tokenizer.eos_token_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def own_prefix(task: Task, config: Any) -> str:
    """Return the words that the model was pretrained to take this task by (T5, Raffel et al. 2020), or nothing."""
    tasks = getattr(config, "task_specific_params", None) or {}
    languages = f"translation_{language(task.source_language)}_to_{language(task.target_language)}"
    for name in (task.name, languages):
        if name in tasks and "prefix" in tasks[name]:
            return str(tasks[name]["prefix"])
    return ""


def language(code: str | None) -> str:
    """Return a language's two letters, as T5 names its tasks."""
    return (code or "")[:2].lower()
