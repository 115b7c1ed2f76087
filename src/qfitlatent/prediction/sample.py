"""Draws of side chains, and embeddings, of one structure.

Shapes: N residues, S samples, D=4 chi.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.columns import SAMPLES, embedding_schema
from qfitlatent.prediction.outputs import write_sample_models
from qfitlatent.prediction.predict import check_folder
from qfitlatent.prediction.records import Input, read_input, structure_id
from qfitlatent.prediction.runner import Runner, as_rows, new_generator
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.parquet import conform, write_table


def sample_structure(
    path: str | Path,
    num: int,
    out: str | Path = ".",
    model: str | Path | LoadedModel | None = None,
    *,
    seed: int = 0,
    file_format: str = "cif",
    overwrite: bool = False,
    device: str = "auto",
) -> list[Path]:
    """Independent draws of all chi: ``<id>.samples.parquet``, and a model a draw with side chains.

    The parquet has the columns of ``prediction_files.SAMPLES``, sorted by residue and draw; the
    coordinates are ``<id>_samples.cif`` or ``.pdb``. The same seed gives the same draws.

    Returns the paths written. Raises QfitLatentError as ``predict_structures`` does.
    """
    if num < 1:
        raise QfitLatentError(f"The number of draws is {num}: ask for at least 1.")
    if file_format not in ("cif", "pdb"):
        raise QfitLatentError(f"The format {file_format!r} is neither cif nor pdb.")
    runner, given, protein, files = _one(
        path, out, model, device, overwrite, (".samples.parquet", f"_samples.{file_format}")
    )
    (s,) = runner.encode([protein])
    with torch.inference_mode():
        density = runner.density(s, protein.token)
        chi = density.sample(num, new_generator(seed, given.entry)).numpy()  # (S,N,D)
    has_chi = NUM_CHI[protein.token.numpy()] > 0
    rows = as_rows(protein)[has_chi]
    columns: dict[str, Any] = id_columns(given.tables["residues"], np.repeat(rows, num))
    columns["sample"] = np.tile(np.arange(num), len(rows))
    mask = np.repeat(CHI_DEFINED[protein.token.numpy()[has_chi]], num, axis=0)
    columns |= chi_columns(
        "chi", chi[:, has_chi].transpose(1, 0, 2).reshape(-1, chi.shape[2]), "_rad", mask
    )
    note = {"model_sha256": runner.sha256, "input_sha256": given.sha256, "seed": str(seed)}
    if not write_sample_models(given, as_rows(protein), chi, files[1], note):
        raise QfitLatentError(
            f"{path} has chain names of three characters, for which the PDB format has no room: "
            "use --format cif."
        )
    write_table(conform(pa.table(columns), SAMPLES, files[0]), files[0], SAMPLES)
    return files


def embed_structure(
    path: str | Path,
    out: str | Path = ".",
    model: str | Path | LoadedModel | None = None,
    *,
    overwrite: bool = False,
    device: str = "auto",
) -> list[Path]:
    """The final single representation of each residue: ``<id>.embedding.parquet`` and ``.npz``.

    The npz holds ``embedding`` (N,d_s) float32 and the id columns as arrays of N.

    Returns the paths written. Raises QfitLatentError as ``predict_structures`` does.
    """
    suffixes = (".embedding.parquet", ".embedding.npz")
    runner, given, protein, files = _one(path, out, model, device, overwrite, suffixes)
    s = runner.embed(protein)
    ids = id_columns(given.tables["residues"], as_rows(protein))
    schema = embedding_schema(s.shape[1])
    flat = pa.array(s.numpy().reshape(-1), pa.float32())
    embedding = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)
    write_table(pa.table({**ids, "embedding": embedding}), files[0], schema)
    arrays = {
        name: np.asarray(column.to_pylist(), dtype="U" if pa.types.is_string(column.type) else None)
        for name, column in ids.items()
        if not column.null_count
    }
    with atomic_path(files[1]) as temporary, open(temporary, "wb") as file:
        np.savez(file, embedding=s.numpy(), **arrays)
    return files


def _one(
    path: str | Path,
    out: str | Path,
    model: str | Path | LoadedModel | None,
    device: str,
    overwrite: bool,
    suffixes: Sequence[str],
) -> tuple[Runner, Input, Protein, list[Path]]:
    """A model and a single structure; the files that are to be written are not there."""
    out = Path(out)
    check_folder(out)
    files = [out / f"{structure_id(path)}{suffix}" for suffix in suffixes]
    for file in files:
        if file.exists() and not overwrite:
            raise QfitLatentError(
                f"{file} exists already: add --overwrite, or choose another folder with --out."
            )
    if not Path(path).is_file():
        raise QfitLatentError(f"There is no file {path}: correct the path.")
    runner = Runner(model, device)
    given = read_input(Path(path))
    if given.error:
        raise QfitLatentError(given.error)
    protein = protein_from_tables(given.tables)
    return runner, given, protein, files
