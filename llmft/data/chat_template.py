"""Rendering a model's chat template within bounds of time and memory, in a process that can do nothing else.

A template is a program that comes with a model. jinja2's sandbox keeps it from objects it must not reach, but not from
loops without end or texts without measure, some of which run in C, where nothing inside the same process can stop them.
So one process per llmft process renders all templates, some hundred rows at a time: about a hundredth of a millisecond a row.
"""

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from llmft.errors import LlmftError, ModelError

SECONDS = 2.0
"""Processor time that one rendering may take, long texts some more; a common one takes a ten-thousandth of it."""
WALL_S = 60.0
"""Time that one rendering may take on the clock, should the machine be busy."""
MEMORY_BYTES = 256 << 20
"""Memory that one rendering may take beside the interpreter and the texts that go in."""
LONGEST = 16 << 20
"""Characters of a rendered text, unless what goes in is longer: then twice as many."""
FIXED_DATE = datetime(2024, 7, 26)
"""Chat templates may write today's date. A prompt that changes overnight is another prompt, so the date stands still."""

WORKER = Path(__file__).with_name("template_worker.py")
ADVICE = "Use a model with another template, or without one."

Conversation = Sequence[Mapping[str, str]]

_worker: "Worker | None" = None


class TooMuch(Exception):
    """A template took more time, memory or text than it may; the message says which."""


class Worker:
    """The process that renders, and what goes to and comes from it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        command = [sys.executable, "-I", str(WORKER), str(MEMORY_BYTES), str(SECONDS), FIXED_DATE.isoformat()]
        # nothing of this process's environment: there may be tokens in it
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
        )
        assert self.process.stdin
        assert self.process.stdout
        self.asked, self.answers = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.asked, False)
        os.set_blocking(self.answers, False)

    def ask(self, request: bytes, longest: int) -> bytes:
        """Send one line and return the line that answers it. Raises TooMuch, and LlmftError where the process cannot run."""
        answer, until = bytearray(), time.monotonic() + WALL_S
        left = memoryview(request)
        with selectors.DefaultSelector() as ready:
            ready.register(self.answers, selectors.EVENT_READ)
            ready.register(self.asked, selectors.EVENT_WRITE)
            while not answer.endswith(b"\n"):
                if time.monotonic() > until:
                    raise TooMuch(f"takes longer than {WALL_S:g} s")
                for key, _ in ready.select(1.0):
                    if key.fd == self.asked:
                        with contextlib.suppress(BrokenPipeError):
                            left = left[os.write(self.asked, left) :]
                        if not left:
                            ready.unregister(self.asked)
                        continue
                    part = os.read(self.answers, 1 << 20)
                    if not part:
                        raise self.ended()
                    answer += part
                    if len(answer) > longest:
                        raise TooMuch(f"writes more than {longest:,} bytes")
        return bytes(answer)

    def ended(self) -> Exception:
        """Return why there is no answer."""
        code = self.process.wait()
        if code == 1:
            return LlmftError(f"{WORKER}: the process that renders chat templates cannot start. Install llmft again.")
        if code == -signal.SIGPROF:
            return TooMuch(f"takes more than {SECONDS:g} s of processor time")
        return TooMuch(f"takes more than {MEMORY_BYTES >> 20} MiB of memory, or more depth than there is (exit {code})")

    def close(self) -> None:
        """End the process."""
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert pipe
                pipe.close()


def render(template: str, messages: Conversation, answer: bool, variables: Mapping[str, Any]) -> str:
    """Return a conversation as the template writes it; `answer` opens the assistant's turn.

    Raises ModelError where the template fails, refuses, or takes more than SECONDS, MEMORY_BYTES or LONGEST.
    """
    size = size_of(messages)
    try:
        found = ask(template, [messages], answer, variables)
    except TooMuch as error:
        raise ModelError(f"the model's chat template cannot be rendered: it {error}. {ADVICE}") from error
    if "memory" in found:
        raise ModelError(
            f"the model's chat template cannot be rendered: it takes more than {MEMORY_BYTES >> 20} MiB of memory. {ADVICE}"
        )
    if "error" in found:
        raise ModelError(
            f"the model's chat template cannot be rendered: {found['error']}; set task.system or use a model without one"
        )
    text: str = found["texts"][0]
    if len(text) > max(LONGEST, 2 * size):
        raise ModelError(
            f"the model's chat template cannot be rendered: it writes {len(text):,} characters of {size:,}. {ADVICE}"
        )
    return text


def render_all(
    template: str, conversations: Sequence[Conversation], answer: bool, variables: Mapping[str, Any]
) -> list[str] | None:
    """Return many conversations as `render` does, in one request: a tenth of the time.

    None where that does not go well, or writes more than one of them may: each has to be rendered alone, to tell which it is.
    """
    try:
        texts: list[str] | None = ask(template, conversations, answer, variables).get("texts")
    except TooMuch:
        return None
    if texts is None or sum(map(len, texts)) > max(LONGEST, 2 * sum(map(size_of, conversations))):
        return None
    return texts


def ask(template: str, conversations: Sequence[Conversation], answer: bool, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request to the process that renders, and return its answer. Raises TooMuch; the process has ended then."""
    request = {"template": template, "conversations": conversations, "answer": answer, "variables": variables}
    line = json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    longest = 6 * max(LONGEST, 2 * sum(map(size_of, conversations)))  # a character may take 6 bytes: \u001b
    try:
        found: dict[str, Any] = json.loads(worker().ask(line, longest))
    except BaseException:  # of a signal, say: what comes next would be taken for the answer to another question
        close()
        raise
    return found


def size_of(messages: Conversation) -> int:
    """Return how many characters a conversation has."""
    return sum(len(message["content"]) for message in messages)


def worker() -> Worker:
    """Return the process that renders, started if need be; a forked process needs one of its own."""
    global _worker
    if _worker is not None and _worker.owner != os.getpid():
        close()
    if _worker is None:
        _worker = Worker()
    return _worker


def close() -> None:
    """End the process that renders; the next rendering starts another."""
    global _worker
    if _worker is not None:
        _worker.close()
        _worker = None


atexit.register(close)
