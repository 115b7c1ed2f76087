"""Training in one process or in several: what the rule ``train_model`` calls."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError

_ERROR = "qfitlatent: "


def train(
    config: Mapping[str, Any],
    tables_dir: str | Path,
    split_path: str | Path,
    run_dir: str | Path,
    *,
    threads: int,
    log: TextIO,
) -> None:
    """Train ``config["train"]["devices"]`` processes together; threads are divided among them.

    Raises:
        QfitLatentError: what training itself says, also where another process said it.
    """
    devices = config["train"]["devices"]
    if devices == 1:
        from qfitlatent.training.run import train_run

        train_run(config, tables_dir, split_path, run_dir, threads=threads, log=log)
        return
    each = max(1, threads // devices)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(configuration.dump(config))
        file.flush()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        # "--": without it torchrun takes our options for abbreviations of its own.
        command += [f"--nproc-per-node={devices}", "-m", "--", "qfitlatent", "train"]
        command += ["--config", file.name, "--tables", str(tables_dir), "--split", str(split_path)]
        command += ["--run", str(run_dir), "--threads", str(each)]
        environment = os.environ | {"OMP_NUM_THREADS": str(each)}
        said = ""
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                log.write(line)
                if line.startswith(_ERROR):
                    said = line.removeprefix(_ERROR).strip()
    if process.returncode != 0:
        raise QfitLatentError(
            said
            or f"Training in {devices} processes ended with status {process.returncode}: "
            "the log above says why."
        )
