"""Small trainings: tables to learn from, a configuration, and one run."""

import importlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa

from helpers.proteins import make_protein
from qfitlatent.base import config as configuration
from qfitlatent.training.run import train_run
from qfitlatent.training.trainer import Trainer


def write_tables(folder: Path, num_entries: int = 8, multiconformer: bool = True) -> Path:
    """Tables of small proteins, with the columns that training reads; returns the split."""
    import pyarrow.parquet as pq

    parts: dict[str, list[pa.Table]] = {"residues": [], "frames": [], "conformers": []}
    for e in range(num_entries):
        protein = make_protein(24 + 3 * e, seed=e)
        num = len(protein)
        key = {
            "entry": [f"e{e:02d}"] * num,
            "chain": ["A"] * num,
            "index": pa.array(range(num), pa.int32()),
        }
        torsion = {
            f"{name}_rad": pa.array(protein.torsion[:, i].numpy())
            for i, name in enumerate(("phi", "psi", "omega"))
        }
        parts["residues"].append(
            pa.table(
                {
                    **key,
                    "label_seq": pa.array(range(1, num + 1), pa.int32()),
                    "author_number": pa.array(range(1, num + 1), pa.int32()),
                    "segment": pa.array([0] * num, pa.int32()),
                    "token": pa.array(protein.token.numpy().astype(np.int8)),
                    "num_distinct_conformers": pa.array(protein.num_distinct.numpy()),
                    "b_rank": pa.array(protein.b_rank.numpy()),
                    **torsion,
                }
            )
        )
        rotation = protein.rotation.flatten(1).tolist()
        parts["frames"].append(
            pa.table(
                {
                    **key,
                    "rotation": pa.array(rotation, pa.list_(pa.float32(), 9)),
                    "translation_angstrom": pa.array(
                        protein.translation.tolist(), pa.list_(pa.float32(), 3)
                    ),
                }
            )
        )
        rows = protein.row_residue.numpy()
        if not multiconformer:
            rows = np.unique(rows)
        # A rule to learn: chi1 follows the residue type.
        chi = np.where(
            protein.defined.numpy()[: len(rows)],
            (protein.token.numpy()[rows] % 6 - 3.0)[:, None],
            0,
        )
        key = {name: pa.array(np.asarray(value)[rows]) for name, value in key.items()}
        columns = {
            f"chi{d + 1}_rad": pa.array(
                np.where(chi[:, d] == 0, np.nan, chi[:, d]).astype(np.float32), from_pandas=True
            )
            for d in range(4)
        }
        columns |= {f"chi{d + 1}_observed": pa.array(chi[:, d] != 0) for d in range(4)}
        occupancy = 1.0 / np.bincount(rows)[rows]
        parts["conformers"].append(pa.table({**key, "occupancy_normalised": occupancy, **columns}))
    folder.mkdir(parents=True)
    for name, tables in parts.items():
        pq.write_table(pa.concat_tables(tables), folder / f"{name}.parquet")
    names = [f"e{e:02d}" for e in range(num_entries)]
    splits = ["train"] * (num_entries - 3) + ["validation"] * 2 + ["test"]
    split = {"entry": names, "chain": ["A"] * num_entries, "split": splits}
    split["cluster"] = [e // 2 for e in range(num_entries)]  # pairs of relatives
    pq.write_table(pa.table(split), folder.parent / "split.parquet")
    return folder.parent / "split.parquet"


def make_config(**changes) -> dict:
    config = configuration.load(
        {
            "model": {"d_s": 16, "d_z": 4, "num_blocks": 1, "num_heads": 2, "num_components": 3},
            "train": {"epochs": 4, "learning_rate": 3e-3, "device": "cpu"},
        }
    )
    for name, value in changes.items():
        section = next(s for s in ("model", "train", "average") if name in config[s])
        config[section][name] = value
    return config


def run(folder: Path, config: dict, name: str = "run") -> Path:
    train_run(config, folder / "tables", folder / "split.parquet", folder / name, log=io.StringIO())
    return folder / name


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def killed_at(monkeypatch, place: str, call: int = 1) -> None:
    """Make the ``call``-th call of a function of the training room the last of this process."""
    module, name = place.rsplit(":", 1)
    owner = Trainer if module == "Trainer" else importlib.import_module(module)
    original, calls = getattr(owner, name), []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, dies)
