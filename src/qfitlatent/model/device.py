"""Where the network runs, and how much memory is there."""

import math
import os

import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.machine import memory_bytes


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Under torchrun a process has the CUDA device of its rank. Raises QfitLatentError for a device
    that is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, is_here in here.items() if is_here), "cpu")
    if not here.get(name, name == "cpu"):
        raise QfitLatentError(f"There is no device {name} here: use auto or cpu.")
    rank = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device(name, rank) if name == "cuda" else torch.device(name)


def device_memory_bytes(device: torch.device) -> float:
    """Memory of the device, or of this machine for the CPU; infinite where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_bytes() or math.inf
