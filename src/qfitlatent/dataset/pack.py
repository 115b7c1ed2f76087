"""A data set as a product: tables and split in one folder that an archive can take as it is.

``croissant.json`` (Croissant 1.0, MLCommons) says what each file and column is, in a form from
which training code loads the tables; ``ro-crate-metadata.json`` (RO-Crate 1.1) says the same of the
folder for archives; ``CITATION.cff`` and ``README.md`` say it for people. In ``entries`` the column
``path`` keeps the names of files alone: where they lay is nobody's business.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from qfitlatent import __version__
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file, write_json, write_text
from qfitlatent.pages.readmes import write_readme
from qfitlatent.tables.names import TABLES
from qfitlatent.tables.parquet import read_table, write_table

LICENCES = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
}
"""SPDX identifier, and where its words are."""

KEYS = {
    "entries": ("entry",),
    "residues": ("entry", "chain", "index"),
    "frames": ("entry", "chain", "index"),
    "conformers": ("entry", "chain", "index", "altloc"),
    "split": ("entry", "chain"),
}
"""Columns that tell the rows of a table apart; ``rejected`` has none."""

PARQUET = "application/x-parquet"
"""As mlcroissant and the examples of Croissant call it."""

_TYPES = (
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
    (pa.types.is_string, "sc:Text"),
)


@dataclass(frozen=True)
class About:
    """What the data set is called, whose it is, and under which licence (a key of LICENCES)."""

    title: str
    authors: Sequence[str]
    licence: str
    version: str
    published: date

    def __post_init__(self) -> None:
        if self.licence not in LICENCES:
            raise QfitLatentError(
                f"{self.licence} is no licence that is known here: give {' or '.join(LICENCES)}."
            )
        if not self.authors or not all(map(str.strip, (self.title, self.version, *self.authors))):
            raise QfitLatentError(
                "A data set needs a title, a version and authors: give --title and --author, the "
                "latter once for each."
            )


def pack_data_set(data: str | Path, out: str | Path, about: About) -> list[Path]:
    """Fill the folder ``out`` with the data set in ``data``, such as results/data/<dataset>.

    Returns the files, the metadata last.
    Raises QfitLatentError: tables or split are missing, or ``out`` is there already.
    """
    data, out = Path(data), Path(out)
    sources = {name: data / "tables" / f"{name}.parquet" for name in TABLES}
    sources["split"] = data / "split.parquet"
    for path in sources.values():
        if not path.is_file():
            raise QfitLatentError(
                f"There is no {path}: give the folder of a data set that `snakemake preprocess` "
                "has finished, such as results/data/<dataset>."
            )
    if out.exists():
        raise QfitLatentError(f"{out} exists already: choose another folder with --out.")
    (out / "tables").mkdir(parents=True)
    packed = {name: out / path.relative_to(data) for name, path in sources.items()}
    for name, path in packed.items():
        if name == "entries":
            entries = read_table(sources[name])
            names = [PurePath(text).name for text in entries["path"].to_pylist()]
            at = entries.schema.get_field_index("path")
            entries = entries.set_column(at, entries.schema.field(at), pa.array(names, pa.string()))
            write_table(entries, path, entries.schema)
        else:
            shutil.copyfile(sources[name], path)
    schemas = {name: pq.read_schema(path) for name, path in packed.items()}
    rows = {name: pq.read_metadata(path).num_rows for name, path in packed.items()}
    kinds = sorted(set(read_table(packed["entries"], ["source"])["source"].to_pylist()))
    description = (
        f"Side-chain conformers of {rows['entries']} protein structures ({', '.join(kinds)}): "
        f"{rows['residues']} residues, {rows['conformers']} conformers, backbone frames, and a "
        "split by sequence cluster."
    )
    write_text(out / "CITATION.cff", _citation(about))
    write_readme("readmes/packed.md", out, about=about, description=description, rows=rows,
                 url=LICENCES[about.licence])  # fmt: skip
    listed = [*packed.values(), out / "README.md", out / "CITATION.cff"]
    write_json(out / "croissant.json", _croissant(about, description, out, packed, schemas))
    listed.append(out / "croissant.json")
    write_json(out / "ro-crate-metadata.json", _crate(about, description, out, listed))
    return [*listed, out / "ro-crate-metadata.json"]


def _citation(about: About) -> str:
    citation = {
        "cff-version": "1.2.0",
        "message": "If you use this data set, please cite it as below.",
        "type": "dataset",
        "title": about.title,
        "authors": [{"name": name} for name in about.authors],
        "version": about.version,
        "date-released": about.published.isoformat(),
        "license": about.licence,
    }
    return yaml.safe_dump(citation, sort_keys=False, allow_unicode=True)


def _croissant(
    about: About,
    description: str,
    out: Path,
    packed: Mapping[str, Path],
    schemas: Mapping[str, pa.Schema],
) -> dict[str, Any]:
    """The JSON-LD of Croissant 1.0: a FileObject and a RecordSet for each table."""
    context = files("qfitlatent").joinpath("data/croissant_context.json")
    return {
        "@context": read_json(Path(str(context))),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.title,
        "description": description,
        "creator": [{"@type": "sc:Person", "name": name} for name in about.authors],
        "license": LICENCES[about.licence],
        "version": about.version,
        "datePublished": about.published.isoformat(),
        "citeAs": f"{', '.join(about.authors)}: {about.title}, version {about.version}.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": f"{name}.parquet",
                "name": f"{name}.parquet",
                "contentUrl": path.relative_to(out).as_posix(),
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": PARQUET,
                "sha256": sha256_file(path),
            }
            for name, path in packed.items()
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": name,
                "name": name,
                "key": [{"@id": f"{name}/{column}"} for column in KEYS.get(name, ())],
                "field": [_field(name, field) for field in schema],
            }
            for name, schema in schemas.items()
        ],
    }


def _field(table: str, field: pa.Field) -> dict[str, Any]:
    about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    unit = f" ({about['unit']})" if about.get("unit") else ""
    is_list = pa.types.is_fixed_size_list(field.type)
    value = field.type.value_type if is_list else field.type
    (kind,) = (kind for holds, kind in _TYPES if holds(value))
    return {
        "@type": "cr:Field",
        "@id": f"{table}/{field.name}",
        "name": field.name,
        "description": f"{about.get('description', field.name)}{unit}",
        "dataType": kind,
        **({"repeated": True} if is_list else {}),
        "source": {
            "fileObject": {"@id": f"{table}.parquet"},
            "extract": {"column": field.name},
        },
    }


def _crate(about: About, description: str, out: Path, listed: Sequence[Path]) -> dict[str, Any]:
    """The JSON-LD of RO-Crate 1.1."""
    people = [{"@id": f"#author-{number}"} for number in range(1, len(about.authors) + 1)]
    formats = {".parquet": PARQUET, ".md": "text/markdown", ".json": "application/ld+json"}
    data = [
        {
            "@id": path.relative_to(out).as_posix(),
            "@type": "File",
            "name": path.name,
            "encodingFormat": formats.get(path.suffix, "text/yaml"),
            "contentSize": str(path.stat().st_size),
            "sha256": sha256_file(path),
        }
        for path in listed
    ]
    graph = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": about.title,
            "description": description,
            "datePublished": about.published.isoformat(),
            "version": about.version,
            "license": {"@id": LICENCES[about.licence]},
            "author": people,
            "hasPart": [{"@id": item["@id"]} for item in data],
            "mentions": {"@id": "#qfitlatent"},
        },
        {
            "@id": LICENCES[about.licence],
            "@type": "CreativeWork",
            "name": about.licence,
            "identifier": about.licence,
        },
        *(
            {**person, "@type": "Person", "name": name}
            for person, name in zip(people, about.authors, strict=True)
        ),
        {
            "@id": "#qfitlatent",
            "@type": "SoftwareApplication",
            "name": "qFitLatent",
            "version": __version__,
        },
        *data,
    ]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
