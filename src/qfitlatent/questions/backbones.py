"""The backbones of a set, one at a time: structures, models of a file, frames of a trajectory.

Each is given as a file of its own, as ``predict`` takes it, so that what is said of a model is
what ``predict`` says of it alone. A file with one model is given as it is. MDAnalysis reads
trajectories.
"""

import csv
import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import gemmi

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import printable, structure_id
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import is_water
from qfitlatent.prediction.records import find_structures, listed
from qfitlatent.structure.containers import FileError, default_limits, plain_text, read_bytes
from qfitlatent.structure.mmcif import is_mmcif

IONS = frozenset("NA CL K SOD CLA POT MG CA NA+ CL- K+ MG2+ CAL".split())  # noqa: SIM905
"""What a simulation adds to its water."""

Slice = str | slice | None


@dataclass(frozen=True)
class Member:
    """One backbone of a set.

    name: of the file, number of the model or of the frame; weight: in averages, 1 over all members;
    path: a file that has it alone, which is there until the next member is asked for; source: the
    file that was given.
    """

    name: str
    weight: float
    path: Path
    source: Path

    @contextmanager
    def named(self) -> Iterator[None]:
        """What is said of the file that has it alone is said of the model of the file given."""
        try:
            yield
        except QfitLatentError as error:
            if self.path == self.source or str(self.path) not in str(error):
                raise
            whole = f"model {self.name} of {printable(self.source)}"
            raise QfitLatentError(str(error).replace(str(self.path), whole)) from error


@dataclass(frozen=True)
class _Source:
    """A file: its path and, where it has several, the names of its models or frames."""

    path: Path
    names: tuple[str, ...]
    each: Callable[[Path, Sequence[int]], Iterator[Path]]
    """In a folder, files of the members of these numbers, one after the other."""


class Backbones:
    """A set of backbones, of which each iteration gives the members one by one."""

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        trajectory: str | Path | None = None,
        frames: Slice = None,
        weights: str | Path | Mapping[str, float] | None = None,
        pattern: str = "*",
    ) -> None:
        """paths: structure files and folders; of a file with several models all are members.

        trajectory: its frames are the members, and the one path is its topology. frames: which
        members, as ``start:stop:step`` counted from 0. weights: by name, or a CSV file with the
        columns model and weight; all alike if None.

        Raises QfitLatentError for what is not there or cannot be read, for a selection that leaves
        nothing, and for weights that are none.
        """
        if trajectory is None:
            found = find_structures(paths, pattern)
            self._sources = [_of_file(path) for path in found]
            ids = list(found.values())
        else:
            topology = listed(paths)
            if len(topology) != 1 or topology[0].is_dir():
                raise QfitLatentError(
                    "A trajectory needs one topology: give one file that names its atoms."
                )
            self._sources = [_of_trajectory(topology[0], Path(trajectory))]
            ids = [structure_id(topology[0])]
        self.path = listed(paths)[0]
        """The first path that was given."""
        self.name = ids[0] if len(ids) == 1 else structure_id(self.path)
        """What results are called by."""
        several = len(self._sources) > 1
        every = [
            (i, number, _member_name(entry if several else "", source.names, number))
            for i, (entry, source) in enumerate(zip(ids, self._sources, strict=True))
            for number in range(max(1, len(source.names)))
        ]
        self._chosen = every[_slice(frames)]
        if not self._chosen:
            raise QfitLatentError(
                f"--frames {frames} leaves none of the {len(every)} models: they count from 0."
            )
        self.names = [name or self.name for _, _, name in self._chosen]
        self._weight = _weights(weights, self.names, [name or self.name for *_, name in every])

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Member]:
        named = zip(self.names, self._weight, strict=True)
        for i, source in enumerate(self._sources):
            numbers = [number for at, number, _ in self._chosen if at == i]
            if not numbers:
                continue
            with tempfile.TemporaryDirectory(prefix="qfitlatent-") as folder:
                for path in source.each(Path(folder), numbers):
                    name, weight = next(named)
                    yield Member(name, weight, path, source.path)


@contextmanager
def progress_over(num: int, stream: TextIO | None) -> Iterator[Progress]:
    """The progress of so many backbones; shown nowhere without a stream."""
    with (
        open(os.devnull, "w") as nowhere,
        Progress(num, "models", stream or nowhere, measure="residues") as progress,
    ):
        yield progress


def _member_name(entry: str, names: Sequence[str], number: int) -> str:
    """Of several files the id, of several models the number, of both ``id#number``."""
    if len(names) < 2:
        return entry
    return f"{entry}#{names[number]}" if entry else names[number]


def _slice(frames: Slice) -> slice:
    """``start:stop:step`` as Python has it; a number alone is one member."""
    if frames is None:
        return slice(None)
    if isinstance(frames, slice):
        return frames
    found = re.fullmatch(r"(-?\d+)?:(-?\d+)?(?::(\d+)?)?", frames.strip())
    if found:
        start, stop, step = (int(x) if x else None for x in found.groups())
        if step != 0:
            return slice(start, stop, step)
    elif re.fullmatch(r"\d+", frames.strip()):
        return slice(int(frames), int(frames) + 1)
    raise QfitLatentError(
        f"--frames is {frames!r}, but must be start:stop:step, such as 0:1000:10, counted from 0."
    )


def _weights(
    given: str | Path | Mapping[str, float] | None, names: Sequence[str], every: Sequence[str]
) -> list[float]:
    """Shares of the names, which sum to 1."""
    if given is None:
        return [1.0 / len(names)] * len(names)
    where = "The weights" if isinstance(given, Mapping) else str(given)
    table = given if isinstance(given, Mapping) else _read_weights(Path(given))
    if unknown := [name for name in table if name not in set(every)]:
        raise QfitLatentError(
            f"{where} has a weight of {unknown[0]!r}, which is no model: they are called "
            f"{', '.join(every[:3])}{', ...' if len(every) > 3 else ''}."
        )
    if missing := [name for name in names if name not in table]:
        raise QfitLatentError(f"{where} has no weight of {missing[0]!r}: give one for each model.")
    values = [float(table[name]) for name in names]
    if not all(math.isfinite(value) and value >= 0 for value in values) or not sum(values) > 0:
        raise QfitLatentError(
            f"{where} has a weight that is no number from 0 on, or only zeros: correct it."
        )
    return [value / sum(values) for value in values]


def _read_weights(path: Path) -> dict[str, float]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"model", "weight"} <= set(reader.fieldnames or ()):
                raise QfitLatentError(
                    f"{path} needs the columns model and weight in its first row."
                )
            rows = [(row["model"], row["weight"]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise QfitLatentError(f"{path} cannot be read as CSV: {error}.") from error
    weights: dict[str, float] = {}
    for name, text in rows:
        if name in weights:
            raise QfitLatentError(f"{path} has two weights of {name!r}: leave one.")
        try:
            weights[name] = float(text)
        except (TypeError, ValueError):
            raise QfitLatentError(f"{path} has the weight {text!r}, which is no number.") from None
    return weights


def _of_file(path: Path) -> _Source:
    """The models of a structure file."""
    try:
        text = _text(path)
    except (OSError, FileError):  # what is wrong is said where it is predicted
        return _alone(path)
    names = _Cif(path, text).names if is_mmcif(text) else _Pdb(text).names
    if len(names) < 2:
        return _alone(path)

    def each(folder: Path, numbers: Sequence[int]) -> Iterator[Path]:
        text = _text(path)
        kind, suffix = (_Cif(path, text), "cif") if is_mmcif(text) else (_Pdb(text), "pdb")
        for number in numbers:
            yield _write(
                folder, f"{structure_id(path)}_{names[number]}.{suffix}", kind.only(number)
            )

    return _Source(path, names, each)


def _alone(path: Path) -> _Source:
    return _Source(path, (), lambda folder, numbers: iter((path,)))


def _text(path: Path) -> bytes:
    limits = default_limits()
    return plain_text(read_bytes(path, limits), limits)


def _write(folder: Path, name: str, text: bytes) -> Path:
    """The one file of the folder: the one before goes."""
    for path in folder.iterdir():
        path.unlink()
    path = folder / name
    path.write_bytes(text)
    return path


class _Pdb:
    """The models of a PDB file, between MODEL and ENDMDL."""

    def __init__(self, text: bytes) -> None:
        found = re.compile(rb"^MODEL\b([^\n]*)\n(.*?)^ENDMDL[^\n]*\n?", re.M | re.S)
        self._text, self._models = text, list(found.finditer(text))
        numbers = [match[1].strip().decode("ascii", "replace") for match in self._models]
        self.names = _distinct(numbers)

    def only(self, number: int) -> bytes:
        """What stands before and behind all models, and this one."""
        first, last = self._models[0], self._models[-1]
        return self._text[: first.start()] + self._models[number][2] + self._text[last.end() :]


class _Cif:
    """The models of an mmCIF file, by the column pdbx_PDB_model_num."""

    def __init__(self, path: Path, text: bytes) -> None:
        try:
            self._document = gemmi.cif.read_string(text)
        except (ValueError, RuntimeError) as error:
            raise QfitLatentError(
                f"{printable(path)} cannot be divided into its models: {error}."
            ) from error
        while len(self._document) > 1 and not self._document[0].find_mmcif_category("_atom_site."):
            del self._document[0]
        block = self._document[0]
        column = block.find_values("_atom_site.pdbx_PDB_model_num")
        loop = column.get_loop()
        self._rows: dict[str, list[str]] = {}
        if loop is None:
            self.names: tuple[str, ...] = ()
            return
        self._tags, width = list(loop.tags), loop.width()
        values = iter(loop.values)
        for model in list(column):
            row = " ".join(islice(values, width))
            self._rows.setdefault(model, []).append(row)
        self.names = _distinct([gemmi.cif.as_string(name) for name in self._rows])
        if len(self.names) > 1:
            block.find_mmcif_category("_atom_site.").erase()
            self._others = self._document.as_string()

    def only(self, number: int) -> bytes:
        """All other categories, and the atoms of this model."""
        rows = list(self._rows.values())[number]
        return "\n".join([self._others, "loop_", *self._tags, *rows, ""]).encode()


def _distinct(numbers: Sequence[str]) -> tuple[str, ...]:
    """The numbers of the models, or 1, 2, ... where they name no file or two have the same."""
    usable = all(re.fullmatch(r"\w+", number) for number in numbers)
    if usable and len(set(numbers)) == len(numbers):
        return tuple(numbers)
    return tuple(str(number) for number in range(1, len(numbers) + 1))


def _of_trajectory(topology: Path, trajectory: Path) -> _Source:
    universe = _universe(topology, trajectory)
    names = tuple(str(frame) for frame in range(len(universe.trajectory)))

    def each(folder: Path, numbers: Sequence[int]) -> Iterator[Path]:
        universe = _universe(topology, trajectory)
        structure, chosen = _template(topology, universe)
        sites = [site.atom for site in structure[0].all()]
        groups = gemmi.MmcifOutputGroups(True, auth_all=True)
        for number in numbers:
            universe.trajectory[number]
            for atom, position in zip(sites, chosen.positions.tolist(), strict=True):
                atom.pos = gemmi.Position(*position)
            text = structure.make_mmcif_document(groups).as_string()
            yield _write(folder, f"{structure_id(topology)}_{number}.cif", text.encode())

    return _Source(topology, names, each)


def _universe(topology: Path, trajectory: Path) -> Any:
    """MDAnalysis' view of both. Raises QfitLatentError where they cannot be read together."""
    for path in (topology, trajectory):
        if not path.is_file():
            raise QfitLatentError(f"There is no file {path}: correct the path.")
    try:
        import MDAnalysis
    except ModuleNotFoundError as error:
        raise QfitLatentError(
            "Trajectories are read by MDAnalysis, which is not installed: "
            "pip install 'qfitlatent[trajectories]'."
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return MDAnalysis.Universe(str(topology), str(trajectory))
    except Exception as error:  # each of its readers has errors of its own
        what = " ".join(str(error).split())
        raise QfitLatentError(
            f"MDAnalysis cannot read {trajectory} with the topology {topology} ({what:.200})."
        ) from error


def _template(topology: Path, universe: Any) -> tuple[gemmi.Structure, Any]:
    """All heavy atoms but water and its ions, as gemmi's, and as MDAnalysis' in the same order.

    Chains are those of the topology, or its segments; a number that does not go up begins another.
    """
    atoms = universe.atoms
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not hasattr(atoms, "elements"):
            universe.guess_TopologyAttrs(to_guess=["elements"])
        names = [str(name).upper() for name in universe.residues.resnames]
        ids = [str(x).strip() for x in getattr(universe.residues, "segids", [""] * len(names))]
        has_chains = hasattr(atoms, "chainIDs")
    structure = gemmi.Structure()
    structure.name = structure_id(topology)
    model = gemmi.Model(1)
    kept: list[int] = []
    chain, label, last = gemmi.Chain(""), None, 0
    used: dict[str, int] = {}
    for residue, name, segment in zip(universe.residues, names, ids, strict=True):
        if is_water(name) or name in IONS:
            continue
        heavy = [atom for atom in residue.atoms if str(atom.element).upper() not in ("H", "D")]
        if not heavy:
            continue
        own = (str(heavy[0].chainID).strip() if has_chains else "") or segment or "A"
        if own != label or int(residue.resid) <= last:
            if len(chain):
                model.add_chain(chain)
            used[own] = used.get(own, 0) + 1
            chain = gemmi.Chain(own if used[own] == 1 else f"{own}{used[own]}")
            label = own
        last = int(residue.resid)
        chain.add_residue(_residue(name, last, heavy))
        kept += [int(atom.index) for atom in heavy]
    if len(chain):
        model.add_chain(chain)
    if not kept:
        raise QfitLatentError(f"{topology} has no atoms beside water, ions and hydrogens.")
    structure.add_model(model)
    structure.setup_entities()
    structure.assign_serial_numbers()
    return structure, atoms[kept]


def _residue(name: str, number: int, atoms: Sequence[Any]) -> gemmi.Residue:
    residue = gemmi.Residue()
    residue.name, residue.seqid = name, gemmi.SeqId(number, " ")
    for one in atoms:
        atom = gemmi.Atom()
        atom.name, atom.occ, atom.b_iso = str(one.name), 1.0, 0.0
        atom.element = gemmi.Element(str(one.element))
        residue.add_atom(atom)
    return residue
