"""A folder of one's own for the workflow, so that data and settings do not lie among sources.

The workflow itself stays where it is: in the checkout, or in ``share/qfitlatent`` of an installed
package. The folder's ``Snakefile`` includes it from there.
"""

import shutil
from importlib import metadata
from pathlib import Path

from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import write_text

SNAKEFILE = """\
# The workflow of the package qfitlatent that is installed; your own rules may follow.
from qfitlatent.base.project import workflow_home


include: str(workflow_home() / "Snakefile")
"""

README = """\
# A project of qFitLatent

    snakemake --cores 8

runs `config.yaml`: as it stands, on simulated entries. Change it, or lay a file of your own over
it with `--configfile mine.yaml`. `snakemake -n` says what would run, `qfitlatent config` what every
key means. Results go to `results/`, with a README of their own. `profiles/default` says how jobs
run on this machine, `profiles/slurm` how on a cluster (`--workflow-profile profiles/slurm`).
"""


def workflow_home() -> Path:
    """The folder with the workflow's ``Snakefile``, ``workflow/``, ``envs/`` and ``profiles/``.

    Raises:
        QfitLatentError: the package was installed without them.
    """
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "Snakefile").is_file() and (checkout / "workflow" / "rules").is_dir():
        return checkout
    try:
        installed = metadata.files("qfitlatent") or []
    except metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        if file.parts[-3:] == ("share", "qfitlatent", "Snakefile"):
            return Path(str(file.locate())).resolve().parent
    raise QfitLatentError(
        "This installation of qfitlatent has no workflow: install the package anew from its wheel "
        "or its checkout."
    )


def make_project(folder: str | Path) -> list[Path]:
    """Writes Snakefile, config.yaml, profiles and a README into the folder; returns them.

    Raises:
        QfitLatentError: one of these files is there already; then nothing is written.
    """
    folder = Path(folder)
    settings = config.commented(config.load()).partition("\n")[2]  # the schema is not beside it
    texts = {"Snakefile": SNAKEFILE, "config.yaml": settings}
    texts |= {"README.md": README, ".gitignore": "results/\n.snakemake/\n"}
    profiles = workflow_home() / "profiles"
    copies = {f"profiles/{path.relative_to(profiles)}": path for path in profiles.rglob("*.yaml")}
    for name in (*texts, *copies):
        if (folder / name).exists():
            raise QfitLatentError(
                f"{folder / name} is there already: choose another folder, or remove it first."
            )
    for name, text in texts.items():
        write_text(folder / name, text)
    for name, path in copies.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    return [folder / name for name in (*texts, *copies)]
