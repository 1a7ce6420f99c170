"""The other side of `chat_template`: a process that renders one chat template after another, and can do nothing else.

Run by its path, so that it imports jinja2 and nothing of llmft. A request is a line of JSON on stdin: template, conversations
(lists of messages), answer, variables. An answer is a line of JSON on stdout: texts, or the error of the first that has one. Templates come with models, so they are strangers'
programs: they run in jinja2's sandbox, in a process that cannot open a file or a socket, of bounded memory, and that the
kernel ends when a request takes too long.
"""

import encodings.unicode_escape
import json
import os
import pprint
import resource
import signal
import sys
import textwrap
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.debug
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_TIMES = 16
"""No request gets more than so many times the memory that a short one gets."""
TIMES_TEXT = 16
"""Bytes of memory for each byte of a request: four a character, in a text that is read, kept, rendered and written."""
TEXT_BYTES_A_SECOND = 4 << 20
"""Long texts may take longer; they are read and written at ten times this speed."""
EARLY = (encodings.unicode_escape, jinja2.debug, pprint, textwrap, unicodedata)
"""What jinja2 imports when a template first asks for it; then no file can be opened any more."""


class Generation(Extension):
    """{% generation %} marks what the assistant wrote, for who trains by it; what is in the block is written as it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        """Read the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Namespace(jinja2.utils.Namespace):
    """jinja2's own, without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")
        super().__setitem__(name, value)


def refuse(message: str) -> None:
    """Let a template say why it cannot be used."""
    raise jinja2.exceptions.TemplateError(str(message))


def to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Write a value as JSON, with no regard to HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment(date: datetime) -> ImmutableSandboxedEnvironment:
    """Return what chat templates are written for (transformers.utils.chat_template_utils), with a clock that stands still."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = to_json
    env.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: date.strftime(form),
        "namespace": Namespace,
        "dict": lambda *values, **named: dict(*values, **named),
    }
    return env


def shut_in(memory_bytes: int) -> int:
    """Give up what rendering does not need: new files, sockets and processes, and memory beyond measure.

    Returns the bytes of memory of this process so far, 0 where the system does not tell: then time alone is bounded.
    """
    size = 0
    if os.path.exists("/proc/self/statm"):  # Linux
        with open("/proc/self/statm") as own:
            size = int(own.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + memory_bytes, size + MOST_TIMES * memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # stdin, stdout and stderr are open, and nothing opens besides
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return size


def allow(size: int, memory_bytes: int, line: bytes) -> None:
    """Bound memory for one request: the same for each, and what it takes to read and write its texts."""
    if size:
        hard = size + MOST_TIMES * memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (min(hard, size + memory_bytes + TIMES_TEXT * len(line)), hard))


def requests(size: int, memory_bytes: int) -> Iterator[bytes]:
    """Read the lines of stdin, each within the bounds that its length sets, and without those while it is awaited."""
    while True:
        if size:
            hard = size + MOST_TIMES * memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        line = sys.stdin.buffer.readline()
        if not line:
            return
        allow(size, memory_bytes, line)
        yield line


def main(memory_bytes: int, seconds: float, date: str) -> None:
    """Answer requests until there are no more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # meant for the process that asks, which ends this one
    env = environment(datetime.fromisoformat(date))
    compiled = lru_cache(maxsize=8)(env.from_string)
    env.from_string("{{ messages|tojson }}{% for each in messages %}{{ '\\n' ~ each }}{% endfor %}").render(messages=[{}])
    size = shut_in(memory_bytes)
    for line in requests(size, memory_bytes):
        allowed = seconds + len(line) / TEXT_BYTES_A_SECOND
        try:
            signal.setitimer(signal.ITIMER_PROF, allowed)  # of processor time; then SIGPROF ends the process, also within C
            asked = json.loads(line)
            texts = []
            for messages in asked["conversations"]:
                signal.setitimer(signal.ITIMER_PROF, allowed)
                texts.append(compiled(asked["template"]).render(
                    messages=messages, add_generation_prompt=asked["answer"], tools=None, documents=None, **asked["variables"]
                ))  # fmt: skip
            out = json.dumps({"texts": texts}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        except MemoryError:
            out = b'{"memory": true}'
        except Exception as error:  # a template is a program: it raises jinja2's errors, and through them anything
            out = json.dumps({"error": f"{str(error)[:2000] or type(error).__name__}"}).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        line, texts = b"", []
        sys.stdout.buffer.write(out + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
