"""Where the network runs, and how much memory is there."""

import math
import os

import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.machine import memory_bytes


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU; a device that is absent is an error."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[name]:
        raise QfitLatentError(f"train.device is {name}, and there is none here: set it to auto.")
    return (
        torch.device(name, int(os.environ.get("LOCAL_RANK", 0)))
        if name == "cuda"
        else (torch.device(name))
    )


def device_memory_bytes(device: torch.device) -> float:
    """Memory of the device, or of this machine for the CPU; infinite where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_bytes() or math.inf
