"""What a simulated data set is made of, and the ids of its entries."""

from dataclasses import dataclass, fields

from qfitlatent.base.errors import QfitLatentError


@dataclass(frozen=True)
class SimulatorSettings:
    """What to simulate; lengths are counts of residues, fractions are of 1."""

    num_entries: int = 300
    """Entries in the set; their ids are sim00000, sim00001, ..."""
    num_families: int = 75
    """Sequence families that the entries are dealt to in turn."""
    min_residues: int = 50
    """Shortest ancestral chain, residues."""
    max_residues: int = 110
    """Longest ancestral chain, residues."""
    max_chains: int = 2
    """Most chains (copies of one sequence) in an entry."""
    extra_chain_fraction: float = 0.15
    """Probability of each further chain up to max_chains."""
    multiconformer_fraction: float = 0.35
    """Probability that a residue with chi angles has two or more altlocs."""
    max_altlocs: int = 4
    """Most altlocs of a residue; each one beyond the second is half as likely as the last."""
    min_family_identity: float = 0.65
    """Lowest fraction of positions that a member keeps from its ancestor."""
    max_family_identity: float = 0.85
    """Highest fraction of positions that a member keeps from its ancestor."""
    context_strength: float = 1.3
    """Scale of how phi/psi and neighbours move the rotamer weights; 0 makes the truth a library."""
    missing_atom_fraction: float = 0.01
    """Probability that a residue lacks the end of its side chain."""
    missing_residue_fraction: float = 0.004
    """Probability that a residue inside a chain is not modelled."""
    whole_residue_fraction: float = 0.15
    """Probability that altlocs of a multiconformer residue include its backbone atoms."""
    uneven_occupancy_fraction: float = 0.04
    """Probability that the occupancies of a multiconformer residue do not sum to 1."""
    mse_fraction: float = 0.1
    """Probability that an entry has MSE in place of MET."""
    insertion_code_fraction: float = 0.1
    """Probability that a chain has a run of insertion codes."""
    num_waters: int = 6
    """Waters in each entry."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_fraction", "_identity")) and not 0.0 <= value <= 1.0:
                raise QfitLatentError(
                    f"simulate.{field.name} is {value}, but it is a fraction: give 0 to 1."
                )
            if field.name.startswith(("num_", "max_r", "max_c", "min_r")) and value < 0:
                raise QfitLatentError(f"simulate.{field.name} is {value}: give a positive number.")
        if not 1 <= self.num_entries <= 100_000:
            raise QfitLatentError(
                f"simulate.num_entries is {self.num_entries}: ids have five digits, "
                "give 1 to 100000."
            )
        if self.num_families < 1 or self.max_chains < 1:
            raise QfitLatentError("simulate.num_families and max_chains must be at least 1.")
        for low, high in (
            ("min_residues", "max_residues"),
            ("min_family_identity", "max_family_identity"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise QfitLatentError(f"simulate.{low} is above simulate.{high}: exchange them.")
        if self.min_residues < 10:
            raise QfitLatentError("simulate.min_residues must be at least 10.")
        if not 2 <= self.max_altlocs <= 6:
            raise QfitLatentError(f"simulate.max_altlocs is {self.max_altlocs}: give 2 to 6.")


def entry_ids(settings: SimulatorSettings) -> list[str]:
    """sim00000, sim00001, ...: one id an entry."""
    return [f"sim{number:05d}" for number in range(settings.num_entries)]
