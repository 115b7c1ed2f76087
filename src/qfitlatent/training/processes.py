"""Several processes that train together (torchrun): who takes part, and sums over all of them."""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Processes:
    """``world`` processes, of which this one is ``rank``; one alone under no torchrun."""

    def __init__(self, device: torch.device, world: int = 1, rank: int = 0) -> None:
        self.device, self.world, self.rank = device, world, rank

    @classmethod
    def join(cls, device: torch.device) -> "Processes":
        """Those that torchrun has started."""
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return cls(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(device, dist.get_world_size(), dist.get_rank())

    def leave(self) -> None:
        """Waits for the others and ends the group."""
        if self.world > 1:
            dist.barrier()
            dist.destroy_process_group()

    def sum(self, value: Tensor) -> Tensor:
        """``value`` added up over all processes."""
        if self.world > 1:
            value = value.to(self.device)
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients of the global batch, in one message."""
        if self.world == 1:
            return
        parameters = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p).clone()
