"""Whole commands on model folders that mean harm, or that have changed."""

import re
from collections.abc import Callable
from pathlib import Path

import crash_lab
import pytest
from folder_harm import COMMIT, both, config, content, remove, tensors, tokenizer, with_code
from folder_rows import TRAIN, rows_file

from llmft.models.locate import content_hash

pytestmark = pytest.mark.usefixtures("alone")

COMMANDS: dict[str, tuple[Callable[[Path], None], list[str], int, str]] = {
    "code in the folder": (with_code(AutoConfig="evil.C"), [], 4, "which is not run"),
    "trust for a folder": (
        with_code(AutoConfig="evil.C"),
        ["model.trust_remote_code=true", f"model.revision={COMMIT}"],
        4,
        "nothing pins that of a folder",
    ),
    "trust without a commit": (with_code(AutoConfig="evil.C"), ["model.trust_remote_code=true"], 2, "40 hex digits"),
    "trust with a branch": (
        with_code(AutoConfig="evil.C"),
        ["model.trust_remote_code=true", "model.revision=main"],
        2,
        "40 hex digits",
    ),
    "another hash": (lambda folder: None, [f"model.sha256={'0' * 64}"], 4, "its files have changed"),
    "a template without end": (
        content("chat_template.jinja", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        [],
        4,
        "2 s of processor time",
    ),
    "pickles refused": (both(remove("model.safetensors"), content("pytorch_model.bin", b"x")), [], 4, "convert_pickle=true"),
    "a pattern that takes for ever": (
        tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(o*o*)*x$"}, "behavior": "Isolated", "invert": False}),
        ["task.prompt='{source} " + "o" * 400 + "'"],
        4,
        "the tokenizer fails on a text: Onig: Regex search error",
    ),
    "escapes in an error": (config(model_type="\x1b[2J\x1b]0;evil\x07"), [], 4, r"\\x1b\[2J|x1b"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_a_hostile_folder(folder, canary, tmp_path, name):
    harm, words, code, said = COMMANDS[name]
    harm(folder)
    rows_file(tmp_path)
    found = crash_lab.run([*TRAIN, f"model.name={folder}", *words], tmp_path, {"CANARY": str(canary)})
    assert found[0] == code, found[1]
    assert re.search(said, found[1]), found[1]
    assert "Traceback" not in found[1]
    assert "\x1b" not in found[1]


def test_rerun_refuses_a_base_model_that_has_changed(folder, canary, tmp_path):
    rows_file(tmp_path)
    code, said = crash_lab.run([*TRAIN, f"model.name={folder}", "output_dir=first", "adapter=lora"], tmp_path)
    assert code == 0, said
    again = ["train", "--config-dir", "first", "--config-name", "rerun"]
    asked = (tmp_path / "first" / "rerun.yaml").read_text()
    assert f"sha256: {content_hash(folder)}" in asked
    assert "trust_remote_code" not in asked + (tmp_path / "first" / "config.yaml").read_text()
    assert crash_lab.run([*again, "output_dir=second"], tmp_path)[0] == 0
    tensors(lambda all: all | {"transformer.ln_f.weight": all["transformer.ln_f.weight"] + 1})(folder)
    predict = ["predict", "run=first", "input=rows.jsonl", "output=found.jsonl"]  # an adapter needs the same model, too
    for words in ([*again, "output_dir=third"], predict):
        code, said = crash_lab.run(words, tmp_path)
        assert code == 4, said
        assert f"its files have changed: model.sha256={asked.partition('sha256: ')[2][:64]} was asked for" in said
    assert crash_lab.run([*again, "output_dir=third", "model.sha256=null"], tmp_path)[0] == 0
