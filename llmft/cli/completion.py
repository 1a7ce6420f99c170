"""Completion for bash and zsh: the script, and the answers it asks for. Answers come from the schema and from file names."""

from pathlib import Path

from llmft.cli import help as texts
from llmft.cli import schema_text
from llmft.config import sources
from llmft.errors import ConfigError

BASH = r"""# eval "$(llmft completion bash)" in ~/.bashrc
_llmft() {
  local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" word begin=""
  word="${line##* }"
  # bash cuts words at = and wants the part behind it only
  [[ $word == *=* && $COMP_WORDBREAKS == *=* ]] && begin="${word%"${word##*=}"}"
  COMPREPLY=($(llmft completion answers "$line" 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"$begin"}")
  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
  return 0
}
complete -o default -F _llmft llmft"""

ZSH = r"""# eval "$(llmft completion zsh)" in ~/.zshrc, after compinit
_llmft() {
  local -a found
  found=("${(@f)$(llmft completion answers "${LBUFFER}" 2>/dev/null)}")
  if [[ -n ${found[1]} ]]; then
    compadd -S '' -- "${found[@]}"
  else
    _files -P "${PREFIX%%=*}="
  fi
}
compdef _llmft llmft"""

FLAGS = ("--multirun", "--cfg", "--resolve", "--info", "--config-dir", "--config-name", "--help")


def answer(words: list[str]) -> int:
    """Print the script for a shell, or, for the script, the completions of a line. Raises ConfigError for another shell."""
    match words:
        case ["bash"]:
            print(BASH)
        case ["zsh"]:
            print(ZSH)
        case ["answers", line]:
            print("\n".join(complete(line)))
        case _:
            raise ConfigError(f"llmft completion {' '.join(words)}: found no shell, expected llmft completion bash, or zsh.")
    return 0


def complete(line: str) -> list[str]:
    """Whole words that the last word of `line`, the command line up to the cursor, may become."""
    *before, last = line.split(" ")
    words = [word for word in before[1:] if word]
    if not words:
        return [name for name in (*texts.COMMANDS, *texts.OTHERS) if name.startswith(last)]
    command = words[0]
    if command == "completion":
        return [name for name in ("bash", "zsh") if name.startswith(last)]
    if command not in texts.COMMANDS:
        return []
    if last.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(last)]
    if words[-1] in ("--cfg", "-c"):
        return [name for name in ("job", "hydra", "all") if name.startswith(last)]
    key, equals, value = last.partition("=")
    if equals:
        *done, piece = value.split(",")
        return [f"{key}={','.join([*done, name])}" for name in _values(command, key) if name.startswith(piece)]
    return _next_keys(command, last)


def _next_keys(command: str, begun: str) -> list[str]:
    """Groups and sections first (task=, task.), then, behind a dot, the settings of the section."""
    found = {f"{group}=" for group in _groups(command)}
    for section in schema_text.sections(command):
        found |= {f"{setting.key}=" for setting in section.settings}
        found |= {f"{section.name}."} - {"."}
    depth = begun.count(".")
    return sorted(name for name in found if name.startswith(begun) and name.rstrip(".").count(".") == depth)


def _values(command: str, key: str) -> list[str]:
    if key in _groups(command):
        return list(sources.choices(key, _folders()))
    for setting in (setting for section in schema_text.sections(command) for setting in section.settings):
        if setting.key == key and setting.choices:
            return list(setting.choices)
        if setting.key == key and setting.default in ("true", "false"):
            return ["true", "false"]
    if key == "run":
        return ["latest", *sorted((path.parent.as_posix() for path in Path("outputs").glob("*/status.json")), reverse=True)]
    return []


def _groups(command: str) -> list[str]:
    known = {section.name for section in schema_text.sections(command)} | {"experiment"}
    return [group for group in sources.groups(_folders()) if group in known]


def _folders() -> list[Path]:
    return [sources.built_in(), *sources.user_folders(None)]
