"""What is half written goes: at once if its block fails, later if its process died; not what the living or others write."""

import os
import subprocess
import sys

import pytest

from llmft.runs import durable


def test_exception_in_the_block_leaves_nothing(tmp_path):
    def stop() -> None:
        with durable.directory(tmp_path / "new") as folder:
            (folder / "x").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_writes_is_no_leftover(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from llmft.runs import durable\n"
        "with durable.directory(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "new")], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        durable.remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        child.kill()
        child.wait()
    durable.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_own_process_id_of_an_earlier_life_is_a_leftover(tmp_path):
    # In a container the process id is the same after every start.
    (tmp_path / f".step-1.tmp-00000000-{os.getpid()}").mkdir()
    with durable.directory(tmp_path / "step-2") as folder:
        durable.remove_leftovers(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == [folder.name]


def test_names_of_others_are_left_alone(tmp_path):
    for name in (".hidden", "x.tmp-00000000-1", ".vimrc.tmp"):
        (tmp_path / name).touch()
    durable.remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
