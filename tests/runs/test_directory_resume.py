"""An earlier run: gone on with, begun anew in its folder, or left alone and refused with what to do."""

import time
from collections.abc import Callable

import pytest

from llmft.errors import ConfigError, RunInUse
from llmft.runs import directory, status
from llmft.runs.directory import RunDirectory


def died(root, claim, *_) -> RunDirectory:
    """Claim a run directory, and let its lock go as the system does for a process that is killed."""
    run = claim(root)
    run._lock.release()
    return run


@pytest.mark.parametrize("make", [died, lambda root, claim, ended: ended(root, "stopped")])
def test_auto_goes_on(tmp_path, claim, ended, make):
    first = make(tmp_path, claim, ended)
    run = claim(tmp_path)
    assert (run.path, run.resumed) == (first.path, True)
    assert run.previous.state in ("dead", "stopped")
    assert status.read(run.path).step == run.previous.step


@pytest.mark.parametrize("state", ["done", "failed", "diverged"])
def test_auto_does_not_go_on(tmp_path, claim, ended, state):
    first = ended(tmp_path, state)
    assert claim(tmp_path).path != first.path


def test_auto_wants_the_same_fingerprint_and_no_running_one(tmp_path, claim, ended):
    other = ended(tmp_path, "stopped", fingerprint="other")
    running = claim(tmp_path)
    third = claim(tmp_path)
    assert len({other.path, running.path, third.path}) == 3
    assert not third.resumed


def test_auto_takes_the_newest(tmp_path, claim, ended):
    ended(tmp_path, "stopped", resume="never")
    time.sleep(0.002)
    newest = ended(tmp_path, "stopped", resume="never")
    newest.make_latest()  # a link to a run is not one more run
    assert claim(tmp_path).path == newest.path
    assert claim(tmp_path).path != newest.path


def test_never_starts_anew(tmp_path, claim, ended):
    first = ended(tmp_path, "stopped")
    assert claim(tmp_path, resume="never").path != first.path
    with pytest.raises(ConfigError, match=r"training\.resume=never starts anew"):
        claim(tmp_path, output_dir=first.path, resume="never")


@pytest.mark.parametrize("state", ["failed", "diverged", "stopped"])
def test_naming_a_run_goes_on_with_it(tmp_path, claim, ended, state):
    first = ended(tmp_path, state)
    run = claim(tmp_path, resume=str(first.path))
    assert (run.path, run.previous.state, run.previous.error) == (first.path, state, "why")


def test_naming_a_run_that_does_not_fit(tmp_path, claim, ended):
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


def test_leftovers_go_when_a_run_goes_on(tmp_path, claim):
    first = died(tmp_path, claim)
    left = [first.path / name for name in ("checkpoints/.step-9.tmp-00000000-999999999", ".model.tmp-00000000-999999999")]
    for each in left:
        each.mkdir(parents=True)
    assert claim(tmp_path).path == first.path
    assert not any(each.exists() for each in left)


@pytest.fixture
def begun(claim) -> Callable[..., RunDirectory]:
    def make(root, state: str, step: int = 0, **options) -> RunDirectory:
        """A run that ended with the files of one that was about to train; `step`: of its newest checkpoint."""
        run = claim(root, **options)
        for name in ("config.yaml", "plan.json", "metrics.jsonl", "train.log"):
            (run.path / name).write_text("{}")
        (run.path / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
        (run.path / "predictions").mkdir()
        (run.path / "predictions" / ".test.before.jsonl.partial").write_text("{}\n")
        run._lock.release() if state == "died" else run.finish(state, 1, "a.jsonl:3: bad")
        return run

    return make


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("state", ["failed", "stopped", "diverged", "died"])
def test_what_ended_before_its_first_step_begins_anew(tmp_path, claim, begun, state, resume):
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


def test_the_same_run_goes_on_also_from_its_beginning(tmp_path, claim, begun):
    begun(tmp_path, "stopped", output_dir=tmp_path / "own")
    run = claim(tmp_path, output_dir=tmp_path / "own")
    assert (run.resumed, run.note) == (True, None)
    assert (run.path / "plan.json").exists()


@pytest.mark.parametrize("kept", ["step", "damaged step", "results", "named"])
def test_what_did_a_step_is_not_removed(tmp_path, claim, begun, kept):
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


def test_predictions_of_an_evaluation_are_kept(tmp_path, claim, begun):
    own = begun(tmp_path, "stopped", output_dir=tmp_path / "own", fingerprint="other").path
    claims = {"output_root": str(tmp_path), "output_dir": str(own), "label": "x", "resume": "auto", "command": []}
    with pytest.raises(ConfigError, match="another configuration, data or model"):
        directory.claim(**claims, fingerprint="f", setting="output")
    (own / "predictions" / ".test.before.jsonl.partial").write_text("")
    assert directory.claim(**claims, fingerprint="f", setting="output").note is not None


def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path, claim, ended):
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
