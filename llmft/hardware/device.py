"""Where tensors live."""

import torch

from llmft.config.schema import Device, Hardware
from llmft.errors import ConfigError


def choose_device(hardware: Hardware) -> torch.device:
    """The device that hardware.device asks for; auto: a GPU if there is one. Raises ConfigError if it is not there."""
    present = torch.cuda.is_available()
    if hardware.device is Device.cuda and not present:
        why = "torch was built without CUDA" if torch.version.cuda is None and torch.version.hip is None else "no GPU was found"
        raise ConfigError(f"hardware.device=cuda: {why} (torch {torch.__version__}). Set hardware.device=cpu, or auto.")
    return torch.device("cuda" if present and hardware.device is not Device.cpu else "cpu")
