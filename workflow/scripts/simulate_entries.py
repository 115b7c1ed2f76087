"""Simulates the entries of one shard, with their truth, and logs them like any other entry."""

from pathlib import Path

from qfitlatent.archive.entries import EntryRef
from qfitlatent.archive.log import log_local_files
from qfitlatent.base.job import job
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import SimulatorSettings

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    folder = Path(snakemake.output.folder)
    ids = [entry[0] for entry in snakemake.params.entries]
    paths = write_entries(
        ids, folder, SimulatorSettings(**snakemake.params.simulate), snakemake.params.seed
    )
    refs = [EntryRef(entry, str(path)) for entry, path in zip(ids, paths, strict=True)]
    log_local_files(refs, "simulated", snakemake.output.log, log)
