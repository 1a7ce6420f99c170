"""Help texts, generated from the schema and from conf/ so that they cannot go out of date."""

import re
import shutil
import textwrap
from pathlib import Path

from llmft.cli import schema_text
from llmft.config import sources

COMMANDS = {
    "train": "fine-tune a model on a task",
    "eval": "score a finished run, or a plain model",
    "predict": "run a model over a file, or stdin to stdout",
}
OTHERS = {
    "env": "print versions and hardware",
    "completion": "print the completion script for bash or zsh",
    "help": "show this, or the help of a command or a group: llmft help model",
}
EXAMPLES = {
    "train": (
        "llmft train experiment=demo",
        "llmft train task.data.train=news.jsonl task.source={article} task.target={highlights}",
        "llmft train model=qwen3_0_6b adapter.r=32 optimizer.lr=1e-4 training.epochs=2",
        "llmft train -m optimizer.lr=1e-4,2e-4 adapter.r=8,16",
        "llmft train gate.min.rougeL=30",
    ),
    "eval": (
        "llmft eval run=latest",
        "llmft eval run=outputs/RUN split=validation generation=beam4",
        "llmft eval task=summarization model=smollm2_135m",
    ),
    "predict": (
        "llmft predict run=latest input=texts.txt output=answers.jsonl",
        "echo 'A long text.' | llmft predict run=latest",
    ),
}
FLAGS = {
    "-m, --multirun": "a sweep: every combination of the values separated by commas",
    "--cfg job": "show the composed configuration and stop; with --resolve every ${...} replaced",
    "--info defaults-tree": "show which files the configuration comes from",
    "--config-dir FOLDER": "a folder with YAML of your own (besides ./llmft_conf)",
    "--config-name NAME": "start from another primary YAML than the command's own",
}
EXITS = {
    "0": "done",
    "1": "failed: a bug, an I/O error; in a sweep, some job failed",
    "2": "wrong usage or configuration; run directory in use",
    "3": "quality gate not met",
    "4": "data or model missing or unusable",
    "5": "diverged; the message names the last good checkpoint",
    "6": "does not fit in memory",
    "75": "stopped by a signal, checkpoint saved: the same command goes on",
    "130": "stopped by Ctrl-C",
}


def overview() -> str:
    """What `llmft --help` prints."""
    return "\n".join(
        [
            "llmft: fine-tune language models from YAML",
            "",
            "llmft COMMAND [key=value ...] [flags]",
            "",
            *_table({**COMMANDS, **OTHERS}),
            "",
            "Begin with: llmft train experiment=demo",
            "All settings: llmft train --help",
        ]
    )


def topic(name: str) -> str:
    """The help of a command, or the choices of a group with what each is. Raises ConfigError if it is neither."""
    from llmft.errors import ConfigError

    if name in COMMANDS:
        return command(name)
    if name in OTHERS:
        usage = "llmft completion bash|zsh" if name == "completion" else f"llmft {name}"
        return f"{usage}: {OTHERS[name]}"
    folders = [sources.built_in(), *sources.user_folders(None)]
    groups = sources.groups(folders)
    if name not in groups:
        raise ConfigError(f"help {name}: no such command or group. There are {', '.join([*COMMANDS, *OTHERS, *groups])}")
    return "\n".join(
        [f"{name}=...", "", *_table({choice: describe(path) for choice, path in sources.choices(name, folders).items()})]
    )


def command(name: str) -> str:
    """What `llmft train --help` prints: groups, settings, flags, examples, exit codes."""
    sections = schema_text.sections(name)
    folders = [sources.built_in(), *sources.user_folders(None)]
    known = {section.name for section in sections} | {"experiment"}
    defaults = dict(re.findall(r"^  - (\w+): (\w+)$", (folders[0] / f"{name}.yaml").read_text(encoding="utf-8"), re.MULTILINE))
    groups = {
        group: ", ".join(
            f"{choice} (default)" if choice == defaults.get(group) else choice for choice in sources.choices(group, folders)
        )
        for group in sources.groups(folders)
        if group in known
    }
    lines = [f"llmft {name}: {COMMANDS[name]}", "", f"llmft {name} [key=value ...] [flags]", ""]
    lines += ["Choices (each a YAML file; llmft help model says what they are)", *_table(groups, "=")]
    for section in sections:
        title = "Settings, with the values they have where no chosen file says otherwise (--cfg job shows the outcome)"
        lines += ["", f"{section.name}: {section.meaning}" if section.name else title, ""]
        for setting in section.settings:
            lines += _setting(setting)
    lines += ["", "Flags", *_table(FLAGS), "", "Examples", *(f"  {example}" for example in EXAMPLES[name])]
    return "\n".join([*lines, "", "Exit codes", *_table(EXITS)])


def describe(path: Path) -> str:
    """What a YAML file says it is: its first comment line that is neither a header nor the command that uses it."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("# ")
        if line.startswith("#") and not text.startswith(("@", "llmft ")):
            return text
        if not line.startswith("#"):
            break
    return ""


def _setting(setting: schema_text.Setting) -> list[str]:
    choices = f" ({' | '.join(setting.choices)})" if setting.choices else ""
    head = f"  {setting.key}={setting.default}{choices}"
    return [head, *textwrap.wrap(setting.meaning, _width() - 6, initial_indent="      ", subsequent_indent="      ")]


def _table(rows: dict[str, str], tail: str = "") -> list[str]:
    """Two columns, the second wrapped."""
    left = max(len(name) for name in rows) + len(tail) + 4
    lines = []
    for name, text in rows.items():
        wrapped = textwrap.wrap(text, max(_width() - left, 20)) or [""]
        lines.append(f"  {name + tail:<{left - 2}}{wrapped[0]}".rstrip())
        lines += [" " * left + line for line in wrapped[1:]]
    return lines


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)
