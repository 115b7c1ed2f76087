"""What a simulated data set is made of, and the ids of its entries."""

from dataclasses import dataclass

from qfitlatent.base.errors import QfitLatentError


@dataclass(frozen=True)
class SimulatorSettings:
    """Keys of the section ``simulate``; meanings, ranges and defaults are in the schema."""

    num_entries: int
    num_families: int
    min_residues: int
    max_residues: int
    max_chains: int
    multiconformer_fraction: float
    max_altlocs: int
    context_strength: float
    mse_fraction: float
    insertion_code_fraction: float
    num_waters: int

    def __post_init__(self) -> None:
        if self.min_residues > self.max_residues:
            raise QfitLatentError(
                "simulate.min_residues is above simulate.max_residues: exchange them."
            )


def entry_ids(settings: SimulatorSettings) -> list[str]:
    """sim00000, sim00001, ...: one id an entry."""
    return [f"sim{number:05d}" for number in range(settings.num_entries)]
