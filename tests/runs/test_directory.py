"""Which folder a run gets: a new one or the one it names, alone in it, or refused with what to do; and how it is found again."""

import json
import re
import subprocess
import sys
import time

import pytest

from llmft.errors import ConfigError, LlmftError, RunInUse
from llmft.runs import directory, status

TOKEN = "hf_" + "a1B2" * 9


def test_a_new_run(tmp_path, claim):
    run = claim(tmp_path / "outputs", command=["llmft", "train", f"x={TOKEN}"])
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}-sum-smol-lm", run.path.name)
    assert (run.path.parent, run.resumed, run.previous) == (tmp_path / "outputs", False, None)
    now = status.read(run.path)
    assert (now.state, now.step, now.exit, now.end, now.command) == (
        "running",
        0,
        None,
        None,
        ["llmft", "train", "x=hf_[redacted]"],
    )
    run.update(step=12)
    assert status.read(run.path).step == 12
    run.finish("failed", 1, f"no access with {TOKEN}")
    end = status.read(run.path)
    assert (end.state, end.exit, end.step, end.error) == ("failed", 1, 12, "no access with hf_[redacted]")
    assert now.start <= end.end


def test_no_token_is_written_anywhere(tmp_path, claim):
    run = claim(tmp_path, command=[f"x={TOKEN}"])
    run.finish("failed", 1, TOKEN)
    assert all(TOKEN not in each.read_text() for each in run.path.iterdir())


def test_label_is_cut(tmp_path, claim):
    assert len(claim(tmp_path, label="é/" * 200 + "x" * 200).path.name) <= 21 + 60


def test_output_dir(tmp_path, claim):
    own = tmp_path / "deep" / "own"
    first = claim(tmp_path, output_dir=own)
    assert (first.path, first.resumed) == (own, False)
    with pytest.raises(RunInUse):
        claim(tmp_path, output_dir=own)
    first.finish("stopped", 75)
    second = claim(tmp_path, output_dir=own)
    assert second.resumed
    second.update(step=5)
    second.finish("diverged", 5, "loss is nan")
    with pytest.raises(ConfigError) as refused:
        claim(tmp_path, output_dir=own)
    assert str(refused.value) == (
        f"output_dir={own}: the run in {own} diverged at step 5 (loss is nan), so it does not go on by itself. "
        f"Set training.resume={own} to go on all the same, or name another folder."
    )
    with pytest.raises(ConfigError, match="another configuration"):
        claim(tmp_path, output_dir=own, fingerprint="other")
    claim(tmp_path, output_dir=own, resume=str(own)).finish("done", 0)  # each refusal has given the lock back
    with pytest.raises(ConfigError, match="is finished"):
        claim(tmp_path, output_dir=own)


def test_output_dir_that_is_empty_or_was_left_by_a_crash(tmp_path, claim):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".lock").touch()
    (tmp_path / "b" / ".status.json.tmp-00000000-999999999").touch()
    assert not claim(tmp_path, output_dir=tmp_path / "a").resumed
    assert not claim(tmp_path, output_dir=tmp_path / "b").resumed


def test_output_dir_with_files_of_others(tmp_path, claim):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"holds files that are not a run's \(mine.txt\)"):
        claim(tmp_path, output_dir=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match=r"mine\.txt is a file"):
        claim(tmp_path, output_dir=tmp_path / "mine.txt")


def test_a_place_where_no_folder_can_be_made(tmp_path, claim):
    (tmp_path / "file").touch()
    with pytest.raises(LlmftError, match=r"x: cannot be written: Not a directory.*write elsewhere") as refused:
        claim(tmp_path / "file", label="x")
    assert refused.value.exit_code == 1


def test_finish_gives_the_lock_back_when_it_cannot_write(tmp_path, claim, monkeypatch):
    run = claim(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(Exception, match="No space left"):
            run.finish("stopped", 75)
    assert status.read(run.path).state == "dead"
    assert claim(tmp_path).path == run.path


def test_latest_and_names(tmp_path, ended):
    with pytest.raises(ConfigError, match="There are no runs in"):
        directory.resolve("latest", str(tmp_path))
    first = ended(tmp_path, "done")
    time.sleep(0.002)
    second = ended(tmp_path, "done")
    assert directory.resolve("latest", str(tmp_path)) == second.path  # no link yet: the newest
    left = tmp_path / ".latest.tmp-00000000-999999999"
    left.symlink_to("x")
    first.make_latest()
    assert not list(tmp_path.glob(".*"))
    assert directory.resolve("latest", str(tmp_path)) == first.path
    assert (tmp_path / "latest").readlink().name == first.path.name
    assert directory.resolve(second.path.name, str(tmp_path)) == second.path
    assert directory.resolve(str(second.path), "elsewhere") == second.path


def test_a_folder_named_latest_loses_no_run(tmp_path, ended):
    (tmp_path / "latest").mkdir()
    run = ended(tmp_path, "done")
    run.make_latest()
    assert (tmp_path / "latest").is_dir()


RACE = """
import json, sys; from llmft.errors import RunInUse; from llmft.runs.directory import claim
print("ready", flush=True); sys.stdin.readline()
try: run = claim(sys.argv[1], json.loads(sys.argv[2]), "x", "f", "auto", [])
except RunInUse: print(json.dumps(["in use", False]), flush=True)
else: print(json.dumps([str(run.path), run.resumed]), flush=True)
sys.stdin.readline()
"""


def race(root, output_dir) -> list[list]:
    command = [sys.executable, "-c", RACE, str(root), json.dumps(output_dir)]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    children = [subprocess.Popen(command, **options) for _ in range(8)]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
    said = [json.loads(child.stdout.readline()) for child in children]
    for child in children:
        child.communicate("end\n", timeout=20)
    return said


def test_eight_claim_the_same_folder(tmp_path):
    said = race(tmp_path, str(tmp_path / "own"))
    assert sorted(said) == [[str(tmp_path / "own"), False]] + [["in use", False]] * 7


def test_eight_would_go_on_with_the_same_run(tmp_path, ended):
    first = ended(tmp_path, "stopped")
    said = race(tmp_path, None)
    assert len({path for path, _ in said}) == 8
    assert [path for path, resumed in said if resumed] == [str(first.path)]
