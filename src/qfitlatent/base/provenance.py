"""Where a result comes from: code digest, manifest, and whether files are still what they were.

The code digest decides what reruns. It covers a script and every module of this package that the
script imports, directly or not, and the files below ``data/`` that they name, with what those
include. Only a change that can change a result changes it: comments, docstrings, layout and the
description of a ``Column`` do not count. (A table that is there keeps the description with which
it was written.) Words for people stand below ``data/``, and so belong to the stages that show them.
Imports are followed to ``room/file.py``: the ``__init__.py`` of a room holds no code.
"""

import ast
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file
from qfitlatent.base.machine import memory_bytes

PACKAGE = "qfitlatent"
PACKAGE_DIR = Path(__file__).resolve().parents[1]
MANIFEST_VERSION = 1
_VERSIONED = (
    "gemmi",
    "numpy",
    "pandas",
    "pyarrow",
    "qfitlatent",
    "safetensors",
    "snakemake",
    "torch",
)

_INCLUDED = re.compile(r"{%-?\s*(?:extends|include|import|from)\s+[\"']([^\"']+)[\"']")


def code_digest(roots: Iterable[str | Path]) -> str:
    """16 hexadecimal digits that name the code which ``roots`` run.

    Args:
        roots: names of modules ("qfitlatent.structure") or paths of scripts.
    Raises:
        QfitLatentError: a root that is neither.
    """
    pending = [_source_of(root) for root in roots]
    seen: dict[Path, str] = {}
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        digest, imported = _digest_of_file(path)
        seen[path] = digest
        pending += imported
    whole = hashlib.sha256()
    for path in sorted(seen, key=_stable_name):
        whole.update(f"{_stable_name(path)} {seen[path]}\n".encode())
    return whole.hexdigest()[:16]


def _stable_name(path: Path) -> str:
    inside = path.is_relative_to(PACKAGE_DIR)
    return path.relative_to(PACKAGE_DIR).as_posix() if inside else path.name


def _source_of(root: str | Path) -> Path:
    text = str(root)
    path = Path(text) if text.endswith(".py") else _module_path(text)
    if path is None or not path.is_file():
        raise QfitLatentError(f"There is no code {text}: give a module of {PACKAGE} or a script.")
    return path.resolve()


def _module_path(name: str) -> Path | None:
    """The file of ``qfitlatent.x.y``; None for the package itself and for anything else."""
    first, *rest = name.split(".")
    if first != PACKAGE or not rest:
        return None
    base = PACKAGE_DIR.joinpath(*rest)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _digest_of_file(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Digest of one file, and the files of the package that it needs."""
    if path.suffix != ".py":
        return sha256_file(path), tuple(_included(path))
    tree = ast.parse(path.read_bytes(), str(path))
    needed = tuple(sorted(set(_imports(tree, path)) | set(_data_files(tree))))
    bare = _WithoutTexts().visit(tree)
    return hashlib.sha256(ast.dump(bare).encode()).hexdigest(), needed


def _imports(tree: ast.AST, path: Path) -> Iterator[Path]:
    inside = path.is_relative_to(PACKAGE_DIR)
    package = (PACKAGE, *path.relative_to(PACKAGE_DIR).parts[:-1]) if inside else ()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            found = _module_path(name)
            if found is not None:
                yield found.resolve()


def _data_files(tree: ast.AST) -> Iterator[Path]:
    """Files under ``data/`` that a text of the code names, with or without the folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.removeprefix("data/")
            if "." in name and len(name) < 100 and "\n" not in name:
                path = PACKAGE_DIR / "data" / name
                if path.is_file():
                    yield path.resolve()


def _included(path: Path) -> Iterator[Path]:
    """Templates that a template extends or includes; their names are relative to its folder."""
    if path.suffix == ".j2":
        for name in _INCLUDED.findall(path.read_text("utf-8")):
            for found in (path.parent / name, PACKAGE_DIR / "data" / name):
                if found.is_file():
                    yield found.resolve()


class _WithoutTexts(ast.NodeTransformer):
    """Takes out what is only for readers: statements that are a text (docstrings, the words under
    a constant), and the last of the five values of a ``Column``, its description."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if getattr(node.func, "id", "") == "Column":
            node.args = node.args[:4]
            node.keywords = [word for word in node.keywords if word.arg != "description"]
        return self.generic_visit(node)


def manifest(
    *,
    code: Iterable[str | Path],
    inputs: Mapping[str, str | Path],
    outputs: Mapping[str, str | Path] | None = None,
    seeds: Mapping[str, int],
    wall_time_s: float,
    **more: Any,
) -> dict[str, Any]:
    """Everything needed to explain, repeat and check a result, ready for JSON.

    Args:
        code: roots of ``code_digest``.
        inputs: name -> file that was read.
        outputs: name -> file that was written.
        wall_time_s: wall time in seconds; of all parts where a run was resumed.
        more: further facts to keep, as they are.
    """
    return {
        "manifest_version": MANIFEST_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "code_digest": code_digest(code),
        "git": git_state(),
        "versions": versions(),
        "hardware": hardware(),
        "seeds": dict(seeds),
        "wall_time_s": round(float(wall_time_s), 3),
        "inputs": _hashed(inputs),
        "outputs": _hashed(outputs or {}),
        **more,
    }


def _hashed(files: Mapping[str, str | Path]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "path": _relative(Path(path)),
            "num_bytes": Path(path).stat().st_size,
            "sha256": sha256_file(path),
        }
        for name, path in files.items()
    }


def _relative(path: Path) -> str:
    """Relative to the working folder where it lies below it, so that a copy still fits."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else absolute).as_posix()


def git_state() -> dict[str, Any]:
    """Commit of this checkout and whether files differ from it; nulls outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        # Only the checkout of this very package, not whatever repository it was installed into.
        _git("ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE_DIR), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPUs of this machine."""
    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "gpus": [],
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpus"] = [
            torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
        ]
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # Not Linux: the standard library's answer is the next best.
    return platform.processor()


def verify_run(run_dir: str | Path) -> list[str]:
    """What no longer is as the manifest says, one sentence each; empty where all is well.

    Outputs are looked for in ``run_dir`` itself, so that a run which was copied away can be
    checked; inputs where they were, and only where they still are.

    Raises:
        QfitLatentError: no manifest, or not one of ours.
    """
    path = Path(run_dir) / "manifest.json"
    if not path.is_file():
        raise QfitLatentError(
            f"{run_dir} holds no manifest.json: give a run folder, such as results/runs/<run>."
        )
    try:
        record = read_json(path)
        inputs = [(Path(fact["path"]), fact["sha256"]) for fact in record["inputs"].values()]
        outputs = [
            (Path(run_dir) / name, fact["sha256"]) for name, fact in record["outputs"].items()
        ]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise QfitLatentError(f"{path} is not a manifest of this program.") from error
    problems = [f"{file} is missing." for file, _ in outputs if not file.is_file()]
    for file, expected in [*inputs, *outputs]:
        if file.is_file() and sha256_file(file) != expected:
            problems.append(f"{file} has changed since the run was made.")
    return problems
