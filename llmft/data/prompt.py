"""The one function that turns a source text into a prompt, for training, evaluation, prediction and the saved model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llmft.config.schema import ControlTokens as Reading
from llmft.config.schema import Task
from llmft.data import chat_template
from llmft.data.ahead import Ahead
from llmft.data.chat_template import FIXED_DATE
from llmft.data.control_tokens import ControlTokens
from llmft.data.example import Message
from llmft.errors import ModelError

PLACE = re.compile(r"\{source\}|\{context\}")
TEMPLATE_OPTIONS = {"enable_thinking": False}
Asked = tuple[str | tuple[Message, ...], str | None]
"""What a prompt is made of: a source, or the turns so far, and a context."""


@dataclass(frozen=True)
class PromptSettings:
    """What a prompt depends on beside the text; saved with the model as llmft.json."""

    prompt: str
    system: str | None
    chat: bool
    max_source_tokens: int | None
    truncation: str
    control_tokens: str
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


def joined(messages: Sequence[Mapping[str, str]]) -> str:
    """Return a conversation as a model without a chat template reads it, up to where the answer begins."""
    return "\n\n".join(message["content"] for message in messages) + "\n\n"


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
            control_tokens=task.control_tokens.value,
        )
        self.template = chosen_template(tokenizer)
        self.template_ids = Ahead(tokenizer, add_special_tokens=False, split_special_tokens=False)
        self.text_ids = Ahead(tokenizer, add_special_tokens=False)
        self.prompts: dict[Asked, list[int]] = {}
        # how texts of rows are read by default, here and wherever they are counted and cut
        tokenizer.split_special_tokens = task.control_tokens is Reading.text
        self.special = ControlTokens(tokenizer)
        self.turns = self.special
        # the settings are the operator's: a control token in them is one, and those in rows get a space to tell them apart
        self.written = bool(self.special.pattern.search(f"{task.prompt}\n{task.system or ''}"))
        self.split = tokenizer.split_special_tokens and not self.written
        self.bare_ids = Ahead(tokenizer, split_special_tokens=self.split)
        self.end_ids = self.find_end()

    def messages(self, source: str | Sequence[Message], context: str | None = None) -> list[dict[str, str]]:
        """Return the conversation that asks for an answer to `source`."""
        if isinstance(source, str):
            texts = self.row_text(source), None if context is None else self.row_text(context)
            turns = [{"role": "user", "content": filled(self.settings.prompt, *texts)}]
        else:
            turns = [{"role": message.role, "content": self.row_text(message.content)} for message in source]
        if self.settings.system is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self.settings.system})
        return turns

    def text(self, source: str | Sequence[Message], context: str | None = None) -> str:
        """Return the prompt as text, up to where the answer begins."""
        messages = self.messages(source, context)
        if self.settings.chat:
            return self.render(messages, answer=True)
        return joined(messages)

    def render(self, messages: list[dict[str, str]], answer: bool) -> str:
        """Write messages by the tokenizer's chat template; `answer` opens the assistant's turn."""
        return chat_template.render(self.template, messages, answer, self.variables())

    def variables(self) -> dict[str, Any]:
        """Return what a template may ask for beside the messages."""
        return self.tokenizer.special_tokens_map | self.settings.template_options

    def ahead(self, asked: Iterable[Asked], texts: Iterable[str]) -> None:
        """Tokenise in bulk the prompts that `prompt_ids` will be asked for next, and texts that are targets or are counted.

        What holds control tokens is left for then.
        """
        self.prompts = {}
        self.text_ids.make(texts)
        if self.written:
            return
        conversations = {each: self.messages(*each) for each in asked}
        plain = {each: messages for each, messages in conversations.items() if not self.holds_control(messages)}
        if not self.settings.chat:
            self.bare_ids.make(joined(messages) for messages in plain.values())
            return
        written = chat_template.render_all(self.template, list(plain.values()), True, self.variables())
        if written is not None:
            self.template_ids.make(written)
            self.prompts = {each: self.template_ids(text) for each, text in zip(plain, written, strict=True)}
            self.template_ids.make(())

    def prompt_ids(self, source: str | tuple[Message, ...], context: str | None = None) -> list[int]:
        """Return the prompt's token ids. A template writes its own special tokens; else the tokenizer's beginning is kept."""
        if self.prompts and (made := self.prompts.get((source, context))) is not None:
            return list(made)
        if self.settings.chat:
            return self.chat_ids(self.messages(source, context))
        text = self.text(source, context)
        ids = self.bare_ids(self.special.plain(text) if self.split else text)
        while ids and ids[-1] in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id):
            ids.pop()  # an end token after the prompt would tell the model that nothing follows
        return ids

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """Return a conversation's ids: control tokens that the template writes count, those in the messages are text.

        An answer may hold what is no special token, such as <think>: the model is to write it.
        """
        if not self.holds_control(messages) or not self.tokenizer.split_special_tokens:
            return self.template_ids(self.render(messages, answer=True))
        kinds = [self.kind_of(message) for message in messages]
        seen = [kind.seen(message["content"]) for kind, message in zip(kinds, messages, strict=True)]
        marks = self.turns.marks_for([*seen, self.template])
        marked = [
            message | {"content": kind.pattern.sub(lambda word: f"{marks[0]}{word[0]}{marks[1]}", text)}
            for kind, message, text in zip(kinds, messages, seen, strict=True)
        ]
        return self.turns.ids_between(self.render(marked, answer=True), marks)

    def holds_control(self, messages: list[dict[str, str]]) -> bool:
        """Whether a message holds a control token that is to be text."""
        if self.written:
            return False
        kinds = map(self.kind_of, messages)
        return any(kind.pattern.search(kind.seen(message["content"])) for kind, message in zip(kinds, messages, strict=True))

    def kind_of(self, message: dict[str, str]) -> ControlTokens:
        """Return the control tokens that a message must not hold."""
        return self.special if message["role"] == "assistant" else self.turns

    def row_text(self, text: str) -> str:
        """Return a text of a row as it goes among settings that hold control tokens of their own."""
        return self.special.broken(text) if self.written and self.tokenizer.split_special_tokens else text

    def target_ids(self, target: str) -> list[int]:
        """Return the answer's token ids, its end token included."""
        if self.tokenizer.split_special_tokens:
            target = self.special.plain(target)
        return self.text_ids(target) + self.end_ids[:1]

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
                ends += [token for token in self.template_ids(closed[len(opened) :]) if token in special][:1]
            written = {self.tokenizer.added_tokens_decoder.get(token) for token in self.template_ids(closed)}
            self.turns = ControlTokens(self.tokenizer, [token.content for token in written if token])
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


def chosen_template(tokenizer: Any) -> str:
    """Return the chat template that the tokenizer has for a conversation without tools; empty: none. Raises ModelError."""
    if not tokenizer.chat_template:
        return ""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:  # several, none of them called default
        raise ModelError(f"the model's chat template cannot be chosen: {error}") from error
