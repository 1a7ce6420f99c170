"""Chat templates that mean harm: each ends within its bounds in a sentence, or writes a text that says nothing it should not.

Prompt templates (task.source, task.prompt) are the operator's; here rows try to be taken for one.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llmft.config.schema import Task
from llmft.data import chat_template
from llmft.data.chat_template import render
from llmft.data.prompt import Prompt
from llmft.data.row import Row
from llmft.data.template import Template
from llmft.errors import ConfigError, DataError, LlmftError, ModelError

ASKED = [{"role": "user", "content": "Hello"}]
FOUR = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
TIME, MEMORY, UNSAFE = (
    "s of processor time",
    "MiB of memory",
    "unsafe|no attribute|no filter|undefined|not defined|loader|Encountered unknown tag",
)

REFUSED = {
    # time
    "loops in loops": (FOUR, TIME),
    "a loop in a macro that calls itself": (
        "{% macro m(n) %}{% for i in range(9) %}{{ m(n) }}{% endfor %}{% endmacro %}{{ m(1) }}",
        "recursion",
    ),
    "a power of powers": ("{{ 9 ** (9 ** 9) }}", TIME),
    "a power at compile time": ("{% if (7 ** (8 ** 9)) > 0 %}a{% endif %}", TIME),
    "a long division": ("{% for i in range(9999) %}{% set n = (i + 10) ** 300000 // (i + 3) ** 100000 %}{% endfor %}", TIME),
    "a slow search": ("{% for i in range(99999) %}{{ ('a' * 99999).find('a' * 50000 ~ 'b') }}{% endfor %}", TIME),
    "a sort in a loop": ("{% for i in range(99999) %}{{ range(99999)|sort|length }}{% endfor %}", TIME),
    "continue without end": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% continue %}{% endfor %}{% endfor %}",
        TIME,
    ),
    # memory
    "a text of 10^10": ("{{ 'x' * 10 ** 10 }}", MEMORY),
    "a text that doubles": (
        "{% set n = namespace(x='a' * 999) %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        MEMORY,
    ),
    "a list of 10^9": ("{{ [1] * 10 ** 9 }}", MEMORY),
    "a list that doubles": (
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        MEMORY,
    ),
    "wide by ljust": ("{{ 'x'.ljust(10 ** 10) }}", MEMORY),
    "wide by center": ("{{ 'x'|center(10 ** 10) }}", MEMORY),
    "wide by percent": ("{{ '%9999999999d' % 1 }}", MEMORY),
    "wide by format": ("{{ '{:>9999999999}'.format(1) }}", MEMORY),
    "deep by indent": ("{{ 'x\ny'|indent(10 ** 10) }}", MEMORY),
    "wide by the filter format": ("{{ '%9999999999d'|format(1) }}", MEMORY),
    "replaced by more": ("{{ ('a' * 99999)|replace('a', 'b' * 99999) }}", MEMORY),
    "joined": ("{{ range(99999)|join('x' * 99999) }}", MEMORY),
    "batches": ("{{ [1]|batch(10 ** 9, 0)|list }}", MEMORY),
    "a long answer": ("{% for i in range(40) %}{{ 'x' * 999999 }}{% endfor %}", "writes"),
    "a wide range": ("{{ range(10 ** 12) }}", "Range too big"),
    # depth
    "brackets": ("{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}", "recursion|depth"),
    "signs": ("{{ " + "-" * 99999 + "1 }}", "recursion|depth"),
    "lists in lists": ("{{ " + "[" * 9999 + "]" * 9999 + " }}", "recursion|depth"),
    "blocks": ("{% if 1 %}" * 999 + "{% endif %}" * 999, "recursion|depth|nested|indentation"),
    "a macro that calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    # objects
    "mro": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", UNSAFE),
    "globals of a helper": ("{{ cycler.__init__.__globals__['os'].system('touch $CANARY') }}", UNSAFE),
    "globals of a function": ("{{ raise_exception.__globals__ }}{{ raise_exception.__globals__.os.getcwd() }}", UNSAFE),
    "a generator's frame": ("{{ (messages|map('upper')).gi_frame.f_globals.os }}", UNSAFE),
    "format reaches up": (
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception)[0][0].x.y }}",
        f"{UNSAFE}|index|empty|no element",
    ),
    "the namespace": ("{{ namespace(a=1).__init__.__globals__.x }}", UNSAFE),
    "underscores in a namespace": (
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "cannot hold|unsafe|read-only|expected",
    ),
    "self": ("{{ self.__init__.__globals__.x }}", UNSAFE),
    "the environment": ("{{ self._TemplateReference__context.environment.x.y }}", UNSAFE),
    "a change to the messages": ("{{ messages.append(1) }}", UNSAFE),
    "a change to a message": ("{{ messages[0].update(role='system') }}", UNSAFE),
    # files
    "include": ("{% include '/etc/hostname' %}", "loader"),
    "import": ("{% import '/etc/hostname' as x %}", "loader"),
    "extends": ("{% extends '/etc/hostname' %}", "loader"),
    "open": ("{{ open('/etc/hostname').read() }}", "undefined"),
    "__import__": ("{{ __import__('os') }}", "undefined"),
    # others
    "no template": ("{{", "."),
    "an unknown tag": ("{% python %}import os{% endpython %}", "unknown tag"),
    "an unknown filter": ("{{ messages|system }}", "No filter"),
    "its own refusal": ("{{ raise_exception('\x1b[2J' ~ messages[0].content) }}", "Hello"),
    "an endless refusal": ("{{ raise_exception('x' * 10 ** 7) }}", "xxx"),
    "division by zero": ("{{ 1 // 0 }}", "zero"),
}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A path that must not come to be, and a secret that must not get out."""
    path = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(path))
    monkeypatch.setenv("HF_TOKEN", "planted-secret")
    yield path
    assert not path.exists()


@pytest.fixture(scope="module", autouse=True)
def _hurried():
    """The same bounds, but less time until they are met."""
    chat_template.close()
    before, chat_template.SECONDS = chat_template.SECONDS, 0.8
    yield
    chat_template.SECONDS = before
    chat_template.close()


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_template_is_refused_in_a_sentence(canary, name):
    template, said = REFUSED[name]
    began = time.monotonic()
    with pytest.raises(ModelError) as error:
        render(template, ASKED, True, {})
    message = str(error.value)
    assert message.startswith("the model's chat template cannot be rendered: ")
    assert re.search(said, message), message
    assert len(message) < 3000
    assert "planted-secret" not in message
    assert time.monotonic() - began < 10
    assert render("{{ messages[0].content }}", ASKED, True, {}) == "Hello"  # the next one is none the worse for it


WRITES = {
    "an attribute": ("{{ ''.__class__ }}", ""),
    "a text too long for a number": ("{{ ('9' * 99999)|int }}", "0"),
    "an attribute by filter": ("{{ ''|attr('__class__') }}", ""),
    "an attribute by text": ("{{ ''['__class__'] }}", ""),
    "an attribute by format": ("{{ '{0.__class__}'.format(1) }}", ""),
    "a method by map": ("{{ ['a']|map(attribute='__class__')|join }}", ""),
    "a secret of the environment": ("{{ HF_TOKEN }}{{ environ }}{{ env }}{{ config }}", ""),
    "a template in a message": ("{{ messages[0].content }}", "Hello"),
    "what comes after": ("{% generation %}{{ messages|length }}{% endgeneration %}", "1"),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_a_template_cannot_reach_is_nothing(canary, name):
    template, text = WRITES[name]
    assert render(template, ASKED, True, {}) == text


def test_a_message_is_no_template(canary):
    content = "{{ 7 * 7 }}{% for x in range(9) %}x{% endfor %}{# #}{{ ''.__class__ }}"
    assert render("<{{ messages[0].content }}>", [{"role": "user", "content": content}], True, {}) == f"<{content}>"


def test_what_is_left_after_a_way_out_of_the_sandbox(tmp_path):
    """Should a template get out, it is in a process that can open nothing, has no environment and little memory."""
    code = f"""
import _socket, os
import importlib.util
spec = importlib.util.spec_from_file_location("template_worker", {str(chat_template.WORKER)!r})
template_worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(template_worker)
template_worker.shut_in(64 << 20)
done = []
for name, attempt in {{
    "file": lambda: open("/etc/hostname"),
    "write": lambda: open({str(tmp_path / "canary")!r}, "w"),
    "socket": lambda: _socket.socket(),
    "memory": lambda: bytearray(200 << 20),
    "pipe": lambda: os.pipe(),
}}.items():
    try:
        attempt()
        done.append(name)
    except (OSError, MemoryError):
        pass
print(done)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert not (tmp_path / "canary").exists()


def test_the_process_that_renders_has_no_secrets(canary):
    render("x", ASKED, True, {})
    environ = Path(f"/proc/{chat_template.worker().process.pid}/environ").read_bytes()
    assert environ == b"LC_ALL=C.UTF-8\0"
    assert sorted(os.listdir(f"/proc/{chat_template.worker().process.pid}/fd")) == ["0", "1", "2"]


def test_a_signal_in_the_middle_does_not_mix_up_answers(monkeypatch):
    class Interrupted(BaseException):
        pass

    def stop(*_):
        raise Interrupted

    render("x", ASKED, True, {})
    with monkeypatch.context() as patch:
        patch.setattr(chat_template.os, "read", stop)
        with pytest.raises(Interrupted):
            render("{{ messages[0].content }}", [{"role": "user", "content": "lost"}], True, {})
    assert render("{{ messages[0].content }}", ASKED, True, {}) == "Hello"


def test_it_renders_again_after_the_process_was_killed():
    render("x", ASKED, True, {})
    chat_template.worker().process.kill()
    with pytest.raises(LlmftError):
        render("y", ASKED, True, {})
    assert render("z", ASKED, True, {}) == "z"


def test_a_long_text_goes_through():
    """10 MB of letters of four bytes: what is bounded is the template, not the data."""
    content = "\U0001f600é" * 1_500_000
    assert render("<{{ messages[0].content }}>", [{"role": "user", "content": content}], True, {}) == f"<{content}>"


@pytest.mark.parametrize(
    "template",
    [
        {"tool_use": "{{ messages }}"},
        {"default": FOUR, "tool_use": "x"},
        "{{ raise_exception('no') }}",
    ],
    ids=["none by default", "several, one without end", "one that refuses"],
)
def test_a_prompt_with_such_a_template(tiny, template):
    tokenizer = AutoTokenizer.from_pretrained(tiny / "llama")
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match="the model's chat template cannot be "):
        Prompt(Task(), tokenizer)


# templates of the operator's, filled with rows of strangers

ROWS = [
    "{text.__class__}",
    "{0.__class__.__mro__}",
    "{{ ''.__class__ }}",
    "{% raw %}",
    "${oc.env:HF_TOKEN}",
    "$(touch $CANARY)",
    "`id`",
    "%(asctime)s %n %s",
    "\\1 \\g<0> \\N{BULLET}",
    "{text}",
    "{",
    "}}",
    "f'{open(1)}'",
    "!!python/object/apply:os.system [id]",
    "=cmd|' /C calc'!A0",
]


@pytest.mark.parametrize("text", ROWS)
def test_a_row_is_no_template(tiny, canary, text):
    row = Row({"text": text, "inner": {"a": [text]}}, "rows.jsonl:1")
    assert Template("<{text}> {{x}} {inner.a[0]}").fill(row) == f"<{text}> {{x}} {text}"
    prompt = Prompt(Task(prompt="Q: {source} {context}"), AutoTokenizer.from_pretrained(tiny / "gpt2"))
    assert prompt.text(text, text) == f"Q: {text} {text}\n\n"


@pytest.mark.parametrize(
    "name", ["text.__class__", "text.upper", "text.__class__.__mro__", "__class__", "text[0]", "inner.keys", "inner.a.append"]
)
def test_a_column_is_no_attribute(name):
    row = Row({"text": "x", "inner": {"a": ["y"]}}, "rows.jsonl:1")
    with pytest.raises(DataError, match=r"^rows\.jsonl:1: no "):
        Template(f"{{{name}}}").fill(row)


@pytest.mark.parametrize("text", ["{text!r}", "{text:>9999999999}", "{}", "{text", "{0[}", "{a..b}", "{ }", "}{"])
def test_no_conversions_and_no_widths(text):
    with pytest.raises((ConfigError, DataError)) as error:
        Template(text).fill(Row({"text": "x"}, "rows.jsonl:1"))
    assert error.value.exit_code in (2, 4)
