"""The one function that turns a source text into a prompt, for training, evaluation, prediction and the saved model."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from llmft.config.schema import Task
from llmft.data.example import Message
from llmft.errors import ModelError

# Chat templates may write today's date. A prompt that changes overnight is another prompt, so the date stands still.
FIXED_DATE = datetime(2024, 7, 26)
DATE_PARTS = [*"aAbBdmyYHIMSpjFT", "-d", "-m"]
# transformers lets no function into a template, so the one that tells the date is replaced by a macro in front of it.
FIXED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f"|replace('%{part}', '{FIXED_DATE.strftime(f'%{part}')}')" for part in DATE_PARTS)
    + " }}{% endmacro %}\n"
)
PLACE = re.compile(r"\{source\}|\{context\}")
TEMPLATE_OPTIONS = {"enable_thinking": False}


@dataclass(frozen=True)
class PromptSettings:
    """What a prompt depends on beside the text; saved with the model as llmft.json."""

    prompt: str
    system: str | None
    chat: bool
    max_source_tokens: int | None
    truncation: str
    fixed_date: str = FIXED_DATE.strftime("%d %b %Y")
    template_options: dict[str, Any] = field(default_factory=lambda: dict(TEMPLATE_OPTIONS))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


def filled(prompt: str, source: str, context: str | None) -> str:
    """Put source and context into their places; a context without a place comes below the source. Braces in them are text."""
    if context is not None and "{context}" not in prompt:
        prompt = prompt.replace("{source}", "{source}\n\n{context}")
    texts = {"{source}": source, "{context}": context or ""}
    return PLACE.sub(lambda place: texts[place[0]], prompt)


class Prompt:
    """Builds token ids from texts for one tokenizer and one task.

    A tokenizer with a chat template gets its own template; others get the prompt, a blank line, and the answer.
    """

    def __init__(self, task: Task, tokenizer: Any):
        self.tokenizer = tokenizer
        self.settings = PromptSettings(
            prompt=task.prompt,
            system=task.system,
            chat=bool(tokenizer.chat_template),
            max_source_tokens=task.max_source_tokens,
            truncation=task.truncation.value,
        )
        self.end_ids = self.find_end()

    def messages(self, source: str | Sequence[Message], context: str | None = None) -> list[dict[str, str]]:
        """Return the conversation that asks for an answer to `source`."""
        if isinstance(source, str):
            source = [Message("user", filled(self.settings.prompt, source, context))]
        turns = [{"role": message.role, "content": message.content} for message in source]
        if self.settings.system is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self.settings.system})
        return turns

    def text(self, source: str | Sequence[Message], context: str | None = None) -> str:
        """Return the prompt as text, up to where the answer begins."""
        messages = self.messages(source, context)
        if self.settings.chat:
            return self.render(messages, answer=True)
        return "\n\n".join(message["content"] for message in messages) + "\n\n"

    def render(self, messages: list[dict[str, str]], answer: bool) -> str:
        """Write messages by the tokenizer's chat template; `answer` opens the assistant's turn."""
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=answer,
                tokenize=False,
                chat_template=FIXED_CLOCK + self.tokenizer.get_chat_template(),
                **self.settings.template_options,
            )
        except Exception as error:  # templates are programs: they raise jinja2's errors, and through them anything
            raise ModelError(
                f"the model's chat template cannot be rendered: {error}; set task.system or use a model without one"
            ) from error

    def prompt_ids(self, source: str | Sequence[Message], context: str | None = None) -> list[int]:
        """Return the prompt's token ids. A template writes its own special tokens; else the tokenizer's beginning is kept."""
        text = self.text(source, context)
        if self.settings.chat:
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)
        ids = list(self.tokenizer(text).input_ids)
        while ids and ids[-1] in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id):
            ids.pop()  # an end token after the prompt would tell the model that nothing follows
        return ids

    def target_ids(self, target: str) -> list[int]:
        """Return the answer's token ids, its end token included."""
        return list(self.tokenizer(target, add_special_tokens=False).input_ids) + self.end_ids[:1]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def find_end(self) -> list[int]:
        """Return the ids that end an answer: the one written in training first, then others the tokenizer stops at.

        A chat template closes a turn with its own token (<|im_end|>, <|eot_id|>), which need not be the tokenizer's end.
        """
        ends: list[int] = []
        if self.settings.chat:
            probe = [{"role": "user", "content": "question"}]
            opened = self.render(probe, answer=True) + "answer"
            closed = self.render([*probe, {"role": "assistant", "content": "answer"}], answer=False)
            if closed.startswith(opened):
                special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
                after = self.tokenizer(closed[len(opened) :], add_special_tokens=False).input_ids
                ends += [token for token in after if token in special][:1]
        if self.tokenizer.eos_token_id is not None:
            ends.append(self.tokenizer.eos_token_id)
        if not ends:
            raise ModelError(
                "the tokenizer has no end token and no chat template that closes a turn; set eos_token in its tokenizer_config.json"
            )
        return list(dict.fromkeys(ends))

    @property
    def pad_id(self) -> int:
        """Id that fills batches in generation; masked by length, so the end token serves where there is no pad token."""
        pad = self.tokenizer.pad_token_id
        return self.end_ids[0] if pad is None else pad
