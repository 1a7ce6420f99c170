"""Twelve secrets are planted; afterwards no byte of any file, no name of a file and nothing that was said holds one.

None of them is or was anybody's.
"""

import os
from pathlib import Path

import crash_lab
import crash_runs
import pytest
from hostile_cli import command

PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\nAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtz\n-----END OPENSSH PRIVATE KEY-----\n"
ENVIRONMENT = {
    "HF_TOKEN": "hf_QmFzZTY0SXNOb3RBU2VjcmV0MDA",
    "WANDB_API_KEY": "3f1e9c7ab05d2468ace013579bdf24680fedcba9",
    "AWS_ACCESS_KEY_ID": "AKIAQ7EXAMPLE2PLANTED",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYPLANTED+K",
    "OPENAI_API_KEY": "sk-proj-9aBcD3fGh1jKlMn0pQrStUv",
    "GITHUB_TOKEN": "ghp_Zx8YwV7uTs6RqP5oNm4LkJ3iHg2FeD1cBa09",
    "SLACK_BOT_TOKEN": "xoxb-314159265358-9793238462643-planTED",
    "https_proxy": "http://carrier:Pigeon-1849@127.0.0.1:9",
    "DEPLOY_KEY": PEM,
    "LUGGAGE": "one-two-3-four-five-Spaceballs",  # a name that says nothing
}
"""In the environment of every command."""
BEARER = "Bearer Yq3t6w9zCbFJcNfRjXnZr4u7xADGKaPd"
URL = "https://ann:Corr3ct-Horse@data.example.org/train.jsonl"
"""Typed as settings: refused."""
PARTS = ["QmFzZTY0SXNOb3RBU2VjcmV0", "3f1e9c7ab05d2468", "Q7EXAMPLE2PLANTED", "wJalrXUtnFEMI", "9aBcD3fGh1jKlMn0pQ",
         "Zx8YwV7uTs6RqP5o", "9793238462643", "Pigeon-1849", "b3BlbnNzaC1rZXkt", "Spaceballs", "Yq3t6w9zCbFJcNfR", "Corr3ct-Horse"]  # fmt: skip
"""Of each secret a part that would be enough to have seen it."""


def assert_untold(folder: Path, *said: str) -> None:
    """Nothing below `folder`, no name in it, no target of a link, nothing `said` holds a secret."""
    parts = [part.encode() for part in PARTS]
    assert len(parts) == 12
    seen = 0
    for path in folder.rglob("*"):
        texts = [str(path.relative_to(folder)).encode()]
        if path.is_symlink():
            texts.append(os.fsencode(path.readlink()))
        elif path.is_file():
            texts.append(path.read_bytes())
            seen += 1
        for text in texts:
            assert [part for part in parts if part in text] == [], path
    for text in said:
        assert [part for part in PARTS if part in text] == [], text
    assert seen > 0 or not folder.exists() or not any(folder.iterdir())


def test_what_is_planted_would_be_found(tmp_path):
    for name, secret in {**ENVIRONMENT, "a": BEARER, "b": URL}.items():
        (tmp_path / "file").write_bytes(b"\xff" + secret.encode())
        with pytest.raises(AssertionError, match="file"):
            assert_untold(tmp_path)
        (tmp_path / "file").write_text("")
        with pytest.raises(AssertionError):
            assert_untold(tmp_path, f"{name}={secret}")


@pytest.fixture(scope="module")
def house(tiny, tmp_path_factory):
    """A folder with rows, where secrets are in the environment: (folder, run)."""
    folder = tmp_path_factory.mktemp("house")
    crash_runs.write_rows(folder / "data")
    env = {**ENVIRONMENT, "LLMFT_CACHE": str(folder / "cache")}

    def run(words, **more):
        return crash_lab.run(words, folder, {**env, **more})

    def training(*more):
        extra = ["training.max_steps=2", "training.eval_every=never", "plugins=[hostile_plugin]", *more]
        return crash_runs.training("summarization", tiny / "llama", folder / "data", *extra)

    return folder, run, training


def test_a_run_tells_nothing(house):
    folder, run, training = house
    code, said = run(training("output_dir=run", "task.metrics.length.call=hostile_plugin.length"))
    assert code == 0, said
    code, more = run(["eval", "run=run", "split=validation", "plugins=[hostile_plugin]"])
    assert code == 0, more
    code, most = run(["predict", "run=run", "input=data/test.jsonl", "output=run/out.csv", "plugins=[hostile_plugin]"])
    assert code == 0, most
    assert_untold(folder, said, more, most)


@pytest.mark.parametrize(
    "settings",
    [
        ["task.data.test=nothing.jsonl"],
        ["task.metrics.length.call=hostile_plugin.length"],
        ["optimizer.name=hostile_plugin.Optimizer"],
    ],
    ids=["early", "late", "bug"],
)
def test_a_failing_run_tells_nothing(house, settings):
    """The error of a library holds all of them but one, which nobody could know by its name or look."""
    folder, run, training = house
    leaks = ",".join(name for name in ENVIRONMENT if name != "LUGGAGE")
    name = f"failing-{len(settings[0])}"
    code, said = run(training(f"output_dir={name}", *settings), LEAK=leaks)
    assert code == {"task.data.test": 4, "task.metrics.length.call": 2, "optimizer.name": 1}[settings[0].partition("=")[0]], (
        said
    )
    if code != 4:
        assert "401 Unauthorized: HF_TOKEN=[redacted] WANDB_API_KEY=[redacted]" in said
        assert "HF_TOKEN=[redacted]" in (folder / name / "status.json").read_text()
    assert ("Traceback" in said) is (code == 1)
    assert_untold(folder, said)


def test_a_sweep_tells_nothing(house):
    folder, run, training = house
    leaks = ",".join(name for name in ENVIRONMENT if name != "LUGGAGE")
    words = training("output_root=sweeps", "task.metrics.length.call=hostile_plugin.length", "training.save_every=never")
    code, said = run([*words, "-m", "seed=1,2"], LEAK=leaks)
    assert code == 1, said
    assert said.count("401 Unauthorized") >= 2
    assert list(folder.glob("sweeps/*-sweep/sweep.json"))
    assert_untold(folder, said)


@pytest.mark.parametrize(
    ("secret", "place"),
    [
        pytest.param(secret, place, id=f"{place}-{secret[:6]}", marks=[pytest.mark.torture] if (number + shift) % 3 else [])
        for number, secret in enumerate([BEARER, URL, *list(ENVIRONMENT.values())[:9]])
        for shift, place in enumerate(["argv", "yaml", "data", "sweep", "run"])
    ],
)
def test_settings_hold_none(tmp_path, monkeypatch, secret, place):
    """Typed, in a file, in the name of a data file, in one job of a sweep, in a run's record: refused before anything is written."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    work = tmp_path / "work"
    work.mkdir()
    base = ["train", "model.name=m"]
    words = {
        "argv": [*base, "task.data.train=a.jsonl", f"task.system={secret}"],
        "yaml": [*base, "--config-dir", str(tmp_path / "conf"), "experiment=x"],
        "data": [*base, f"task.data.train=[rows/{secret}/a.jsonl]"],
        "sweep": [*base, "task.data.train=a.jsonl", "-m", f"task.system=x,'{secret}'"],
        "run": ["eval", f"run={tmp_path / 'run'}"],
    }[place]
    for path, head in (("conf/experiment/x.yaml", "# @package _global_\n"), ("run/config.yaml", "model: {name: m}\n")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(f"{head}task:\n  name: x\n  system: {secret.strip()!r}\n".replace("\\n", "\\n"))
    (tmp_path / "run/status.json").write_text("{}")
    said = command(words, work)
    assert "secret" in said.refused() or place in ("data", "sweep")
    assert_untold(work, said.out, said.err)
    assert list(work.iterdir()) == []
