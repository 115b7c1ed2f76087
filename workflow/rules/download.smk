# Entries: simulated, the user's own, or from an archive.
#
# Needs:  the sections entries, simulate and download of the configuration
# Makes:  <data>/download/<shard>.parquet   the log: where each entry's file is, or why it is missing
#         <data>/download.parquet           the logs of all shards, once few enough are missing
#         <data>/search.json                the ids that a search found, with its date
#         <data>/simulated/<shard>/         simulated entries and their truth
#         <results>/raw/                    files of an archive, shared by all data sets

SIMULATOR = config["simulate"] | {"num_entries": 1}  # an added entry changes no other
# What decides which files arrive. The scripts read the rest, connections, timeouts and attempts,
# from `snakemake.config`: fetching more patiently is no reason to fetch again.
FETCHED = {
    name: config["download"][name]
    for name in (
        "format",
        "rcsb_url",
        "rcsb_pdb_url",
        "pdb_redo_url",
        "url",
        "status_url",
        "max_file_mb",
        "max_unpacked_mb",
    )
}


if config["entries"]["search"]:

    checkpoint search_entries:
        input:
            made_from=made_from("search_entries", DATA),
        output:
            f"{DATA}/search.json",
        log:
            f"{DATA_LOGS}/search_entries.log",
        benchmark:
            f"{DATA_BENCHMARKS}/search_entries.tsv"
        conda:
            "../../envs/qfitlatent.yaml"
        threads: 1
        resources:
            mem_mb=by_attempt(1000),
            runtime=by_attempt(10),
            connections=1,
        params:
            search=config["entries"]["search"],
            search_url=config["download"]["search_url"],
            cache=CACHE,
            code=code_of("search_entries"),
        script:
            "../scripts/search_entries.py"


if SOURCE == "simulated":

    rule simulate_entries:
        input:
            made_from=made_from("simulate_entries", DATA),
        output:
            log=f"{DATA}/download/{{shard}}.parquet",
            folder=directory(f"{DATA}/simulated/{{shard}}"),
        log:
            f"{DATA_LOGS}/simulate_entries/{{shard}}.log",
        benchmark:
            f"{DATA_BENCHMARKS}/simulate_entries/{{shard}}.tsv"
        conda:
            "../../envs/qfitlatent.yaml"
        threads: 1
        resources:
            mem_mb=by_attempt(1000),
            runtime=by_attempt(30),
        params:
            entries=entries_of_shard,
            simulate=SIMULATOR,
            seed=config["seed"],
            code=code_of("simulate_entries"),
        script:
            "../scripts/simulate_entries.py"

else:

    rule download_entries:
        input:
            made_from=made_from("download_entries", DATA),
        output:
            f"{DATA}/download/{{shard}}.parquet",
        log:
            f"{DATA_LOGS}/download_entries/{{shard}}.log",
        benchmark:
            f"{DATA_BENCHMARKS}/download_entries/{{shard}}.tsv"
        conda:
            "../../envs/qfitlatent.yaml"
        threads: 1
        resources:
            mem_mb=by_attempt(1000),
            runtime=by_attempt(120),
            # Half of what is allowed: while one shard waits for its last files, another begins.
            connections=1 if SOURCE == "local" else max(1, config["download"]["connections"] // 2),
        params:
            entries=entries_of_shard,
            source=SOURCE,
            download=FETCHED,
            cache=CACHE,
            code=code_of("download_entries"),
        script:
            "../scripts/download_entries.py"


rule merge_downloads:
    input:
        shards=of_all_shards(f"{DATA}/download/{{shard}}.parquet"),
        made_from=made_from("merge_downloads", DATA),
    output:
        f"{DATA}/download.parquet",
    log:
        f"{DATA_LOGS}/merge_downloads.log",
    benchmark:
        f"{DATA_BENCHMARKS}/merge_downloads.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 1
    resources:
        mem_mb=by_attempt(1000),
        runtime=by_attempt(10),
    params:
        max_missing_fraction=config["entries"]["max_missing_fraction"],
        code=code_of("merge_downloads"),
    script:
        "../scripts/merge_downloads.py"
