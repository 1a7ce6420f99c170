"""What Hydra calls with the composed configuration."""

from omegaconf import DictConfig


def run_job(cfg: DictConfig) -> None:
    """Not there yet."""
