"""Which folder a run gets: new, gone on with, or refused with what to do."""

import json
import re
import subprocess
import sys
import time

import pytest

from llmft.errors import ConfigError, LlmftError, RunInUse
from llmft.runs import directory, status
from llmft.runs.directory import RunDirectory

TOKEN = "hf_" + "a1B2" * 9


def claim(
    root, output_dir=None, fingerprint="f", resume="auto", label="Sum/Smol LM", command=("llmft", "train")
) -> RunDirectory:
    return directory.claim(str(root), output_dir and str(output_dir), label, fingerprint, resume, list(command))


def ended(root, state: str, step: int = 5, **options) -> RunDirectory:
    run = claim(root, **options)
    run.update(step)
    run.finish(state, {"done": 0, "stopped": 75, "failed": 1, "diverged": 5}[state], None if state == "done" else "why")
    return run


def died(root, **options) -> RunDirectory:
    run = claim(root, **options)
    run._lock.release()
    return run


def test_a_new_run(tmp_path):
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


def test_no_token_is_written_anywhere(tmp_path):
    run = claim(tmp_path, command=[f"x={TOKEN}"])
    run.finish("failed", 1, TOKEN)
    assert all(TOKEN not in each.read_text() for each in run.path.iterdir())


def test_label_is_cut(tmp_path):
    assert len(claim(tmp_path, label="é/" * 200 + "x" * 200).path.name) <= 21 + 60


@pytest.mark.parametrize("make", [died, lambda root: ended(root, "stopped")])
def test_auto_goes_on(tmp_path, make):
    first = make(tmp_path)
    run = claim(tmp_path)
    assert (run.path, run.resumed) == (first.path, True)
    assert run.previous.state in ("dead", "stopped")
    assert status.read(run.path).step == run.previous.step


@pytest.mark.parametrize("state", ["done", "failed", "diverged"])
def test_auto_does_not_go_on(tmp_path, state):
    first = ended(tmp_path, state)
    assert claim(tmp_path).path != first.path


def test_auto_wants_the_same_fingerprint_and_no_running_one(tmp_path):
    other = ended(tmp_path, "stopped", fingerprint="other")
    running = claim(tmp_path)
    third = claim(tmp_path)
    assert len({other.path, running.path, third.path}) == 3
    assert not third.resumed


def test_auto_takes_the_newest(tmp_path):
    ended(tmp_path, "stopped", resume="never")
    time.sleep(0.002)
    newest = ended(tmp_path, "stopped", resume="never")
    newest.make_latest()  # a link to a run is not one more run
    assert claim(tmp_path).path == newest.path
    assert claim(tmp_path).path != newest.path


def test_never_starts_anew(tmp_path):
    first = ended(tmp_path, "stopped")
    assert claim(tmp_path, resume="never").path != first.path
    with pytest.raises(ConfigError, match=r"training\.resume=never starts anew"):
        claim(tmp_path, output_dir=first.path, resume="never")


@pytest.mark.parametrize("state", ["failed", "diverged", "stopped"])
def test_naming_a_run_goes_on_with_it(tmp_path, state):
    first = ended(tmp_path, state)
    run = claim(tmp_path, resume=str(first.path))
    assert (run.path, run.previous.state, run.previous.error) == (first.path, state, "why")


def test_naming_a_run_that_does_not_fit(tmp_path):
    done, other = ended(tmp_path, "done"), ended(tmp_path, "failed", fingerprint="other", command=["llmft", "train", "a b"])
    with pytest.raises(ConfigError, match="is finished"):
        claim(tmp_path, resume=done.path.name)
    with pytest.raises(ConfigError, match=r"another configuration, data or model \(fingerprint other, this one is f\).*'a b'"):
        claim(tmp_path, resume=str(other.path))
    with pytest.raises(ConfigError, match=r"run 'no': no run directory .*The newest runs: .*" + other.path.name):
        claim(tmp_path, resume="no")
    with pytest.raises(ConfigError, match="name two run directories"):
        claim(tmp_path, resume=str(other.path), output_dir=tmp_path / "new")
    with pytest.raises(RunInUse):
        claim(tmp_path, resume=str(claim(tmp_path).path))


def test_output_dir(tmp_path):
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


def begun(root, state: str, step: int = 0, **options) -> RunDirectory:
    """A run that ended with the files of one that was about to train; `step`: of its newest checkpoint."""
    run = claim(root, **options)
    for name in ("config.yaml", "plan.json", "metrics.jsonl", "train.log"):
        (run.path / name).write_text("{}")
    (run.path / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    (run.path / "predictions").mkdir()
    (run.path / "predictions" / ".test.before.jsonl.partial").write_text("{}\n")
    run._lock.release() if state == "died" else run.finish(state, 1, "a.jsonl:3: bad")
    return run


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("state", ["failed", "stopped", "diverged", "died"])
def test_what_ended_before_its_first_step_begins_anew(tmp_path, state, resume):
    own = tmp_path / "own"
    begun(tmp_path, state, output_dir=own, fingerprint="of bad data")
    (own / "notes.txt").write_text("the user's")
    run = claim(tmp_path, output_dir=own, resume=resume)
    what = "was stopped" if state == "stopped" else state
    assert run.note == (
        f"output_dir={own}: the run there {what} before it had done anything worth keeping, so this one begins anew"
    )
    assert (run.path, run.resumed, run.previous) == (own, False, None)
    assert sorted(each.name for each in own.iterdir()) == [".lock", "notes.txt", "status.json"]
    assert status.read(own).fingerprint == "f"


def test_the_same_run_goes_on_also_from_its_beginning(tmp_path):
    begun(tmp_path, "stopped", output_dir=tmp_path / "own")
    run = claim(tmp_path, output_dir=tmp_path / "own")
    assert (run.resumed, run.note) == (True, None)
    assert (run.path / "plan.json").exists()


@pytest.mark.parametrize("kept", ["step", "damaged step", "results", "named"])
def test_what_did_a_step_is_not_removed(tmp_path, kept):
    own = tmp_path / "own"
    begun(tmp_path, "failed", output_dir=own, fingerprint="other", step=4 if kept == "step" else 0)
    if kept == "damaged step":
        (own / "checkpoints" / "step-000004.damaged-1").mkdir()
    if kept == "results":
        (own / "results.json").touch()
    before = sorted(own.rglob("*"))
    with pytest.raises(ConfigError, match="another configuration, data or model"):
        claim(tmp_path, output_dir=own, resume=str(own) if kept == "named" else "auto")
    assert sorted(own.rglob("*")) == before


def test_predictions_of_an_evaluation_are_kept(tmp_path):
    own = begun(tmp_path, "stopped", output_dir=tmp_path / "own", fingerprint="other").path
    claims = {"output_root": str(tmp_path), "output_dir": str(own), "label": "x", "resume": "auto", "command": []}
    with pytest.raises(ConfigError, match="another configuration, data or model"):
        directory.claim(**claims, fingerprint="f", setting="output")
    (own / "predictions" / ".test.before.jsonl.partial").write_text("")
    assert directory.claim(**claims, fingerprint="f", setting="output").note is not None


def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").touch()
    own = ended(tmp_path, "failed", step=0, output_dir=tmp_path / "own", fingerprint="other").path
    (own / "checkpoints").symlink_to(tmp_path / "data")
    (own / "predictions").symlink_to(tmp_path / "data")
    with pytest.raises(ConfigError):  # what the link shows is no checkpoint of step 0
        claim(tmp_path, output_dir=own)
    (own / "checkpoints").unlink()
    assert claim(tmp_path, output_dir=own).note
    assert (tmp_path / "data" / "rows.jsonl").exists()
    assert not (own / "predictions").exists()


def test_output_dir_that_is_empty_or_was_left_by_a_crash(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".lock").touch()
    (tmp_path / "b" / ".status.json.tmp-00000000-999999999").touch()
    assert not claim(tmp_path, output_dir=tmp_path / "a").resumed
    assert not claim(tmp_path, output_dir=tmp_path / "b").resumed


def test_output_dir_with_files_of_others(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"holds files that are not a run's \(mine.txt\)"):
        claim(tmp_path, output_dir=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match=r"mine\.txt is a file"):
        claim(tmp_path, output_dir=tmp_path / "mine.txt")


def test_a_place_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LlmftError, match=r"x: cannot be written: Not a directory.*write elsewhere") as refused:
        claim(tmp_path / "file", label="x")
    assert refused.value.exit_code == 1


def test_leftovers_go_when_a_run_goes_on(tmp_path):
    first = died(tmp_path)
    left = [first.path / name for name in ("checkpoints/.step-9.tmp-00000000-999999999", ".model.tmp-00000000-999999999")]
    for each in left:
        each.mkdir(parents=True)
    assert claim(tmp_path).path == first.path
    assert not any(each.exists() for each in left)


def test_finish_gives_the_lock_back_when_it_cannot_write(tmp_path, monkeypatch):
    run = claim(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(Exception, match="No space left"):
            run.finish("stopped", 75)
    assert status.read(run.path).state == "dead"
    assert claim(tmp_path).path == run.path


def test_latest_and_names(tmp_path):
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


def test_a_folder_named_latest_loses_no_run(tmp_path):
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


def test_eight_would_go_on_with_the_same_run(tmp_path):
    first = ended(tmp_path, "stopped")
    said = race(tmp_path, None)
    assert len({path for path, _ in said}) == 8
    assert [path for path, resumed in said if resumed] == [str(first.path)]
