"""A command that takes a moment instead of hours: scores (x - 3)^2 + (y - 1)^2, around which the real Hydra runs.

It keeps to what `train` does with its run directory: lock, status.json, results.json. A module of its own, because
joblib's processes import it.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from llmft.errors import ConfigError, DataError, Stopped
from llmft.reports.results import Metric, Objective, Results
from llmft.runs import status
from llmft.runs.lock import Lock
from llmft.runs.status import Status
from llmft.sweep import jobs, search, workers

CONF = Path(__file__).resolve().parents[2] / "conf"


def train(config: dict, run_path: Path) -> float:
    """Write what a run writes. `config.trouble` names a JSON file: {"x,y": what goes wrong in that job}."""
    kind = json.loads(Path(config["trouble"]).read_text()).get(f"{config['x']},{config['y']}")
    if kind == "early" or config["x"] < config["fail_below"]:
        raise ConfigError("x: too small")
    run_path.mkdir(exist_ok=True)
    lock = Lock(run_path)
    lock.acquire()
    try:
        earlier = status.read_as_written(run_path)
        with (run_path / "attempts").open("a") as out:
            out.write(f"{earlier.state if earlier else 'new'}\n")
        now = Status("running", os.getpid(), socket.gethostname(), "2026-01-01T00:00:00+00:00", "f" * 16, ["tiny"])
        status.write(run_path, now)
        if kind == "bug":
            raise KeyError("a bug")  # and the status still says running
        if kind == "kill":
            os._exit(137)
        if kind == "data":
            status.write(run_path, dataclasses.replace(now, state="failed", exit=4, error="rows.jsonl:7: no column"))
            raise DataError("rows.jsonl:7: no column")
        if kind == "stop":
            status.write(run_path, dataclasses.replace(now, state="stopped", exit=75))
            raise Stopped(signal.SIGTERM)
        if kind == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        value = (config["x"] - 3) ** 2 + (config["y"] - 1) ** 2
        higher = config["higher"]
        value = -value if higher else value
        metric = Metric(value, None, None, 1, "tiny", higher)
        measured = Results("tiny", 1, "none", "test", 1, {"square": metric}, objective=Objective("square", value, higher))
        measured.write(run_path / "results.json")
        status.write(run_path, dataclasses.replace(now, state="done", exit=0))
        return value
    finally:
        lock.release()


def job(cfg: DictConfig) -> float | None:
    """What cli does in each job of a sweep."""
    hydra_cfg = HydraConfig.get()
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    sweep_dir = Path(hydra_cfg.sweep.dir)
    overrides = list(hydra_cfg.overrides.task)
    plain = {str(key): value for key, value in config.items()}
    return jobs.run_job(sweep_dir, hydra_cfg.job.num, overrides, plain, lambda output: train(plain, Path(output)))


def trouble(root: Path, **kinds: str) -> None:
    """Say which jobs go wrong and how: trouble(root, **{"2,1": "bug"})."""
    (root / "trouble.json").write_text(json.dumps(kinds))


def sweep(root: Path, *arguments: str) -> tuple[Path, int]:
    """What cli does around a sweep; `root` holds conf/, made here, and outputs/."""
    conf = root / "conf"
    for kind in ("a", "b"):
        (conf / "kind").mkdir(parents=True, exist_ok=True)
        (conf / "kind" / f"{kind}.yaml").write_text(f"name: {kind}\n")
    (conf / "tiny.yaml").write_text(
        "defaults:\n  - kind: a\n  - override hydra/job_logging: disabled\n  - override hydra/hydra_logging: disabled\n  - _self_\n"
        "hydra:\n  output_subdir: null\n  sweep: {subdir: .}\n"
        f"x: 0.0\ny: 0\nhigher: false\nfail_below: -100\ntoken: null\ntrouble: {root}/trouble.json\n"
    )
    if not (root / "trouble.json").exists():
        trouble(root)
    search.register()
    sweep_dir = jobs.choose(str(root / "outputs"), ["tiny", *arguments])
    argv = sys.argv
    sys.argv = ["tiny", "--multirun", f"--config-dir={CONF}", f"hydra.sweep.dir={sweep_dir}", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with workers.stopped_together(sweep_dir) if "hydra/launcher=joblib" in arguments else contextlib.nullcontext():
            hydra.main(version_base="1.3", config_path=str(conf), config_name="tiny")(job)()
    finally:
        sys.argv = argv
        del os.environ["HYDRA_FULL_ERROR"]
        code = jobs.finish(sweep_dir)
    return sweep_dir, code
