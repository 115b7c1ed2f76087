# Structure files become tables, and entries are divided into training, validation and test set.
#
# Needs:  <data>/download/<shard>.parquet, <data>/download.parquet
# Makes:  <data>/shards/<shard>/*.parquet    the tables of one shard
#         <data>/tables/*.parquet            entries, residues, frames, conformers, rejected
#         <data>/split.parquet               sequence cluster and split of each chain


rule preprocess_entries:
    input:
        log=f"{DATA}/download/{{shard}}.parquet",
        made_from=made_from("preprocess_entries", DATA),
    output:
        expand(f"{DATA}/shards/{{{{shard}}}}/{{table}}.parquet", table=TABLES),
    log:
        f"{DATA_LOGS}/preprocess_entries/{{shard}}.log",
    benchmark:
        f"{DATA_BENCHMARKS}/preprocess_entries/{{shard}}.tsv"
    # Before further downloads: a processor is free while they wait for the network.
    priority: 1
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 1
    resources:
        # Above what preprocess.max_memory_gb lets one file take.
        mem_mb=by_attempt(1500 + round(1000 * config["preprocess"]["max_memory_gb"])),
        runtime=by_attempt(60),
    params:
        preprocess=config["preprocess"],
        code=code_of("preprocess_entries"),
    script:
        "../scripts/preprocess_entries.py"


rule merge_tables:
    input:
        shards=of_all_shards(
            *expand(f"{DATA}/shards/{{{{shard}}}}/{{table}}.parquet", table=TABLES)
        ),
        download=rules.merge_downloads.output,
        made_from=made_from("merge_tables", DATA),
    output:
        TABLE_FILES,
    log:
        f"{DATA_LOGS}/merge_tables.log",
    benchmark:
        f"{DATA_BENCHMARKS}/merge_tables.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(30),
    params:
        max_missing_fraction=config["entries"]["max_missing_fraction"],
        code=code_of("merge_tables"),
    script:
        "../scripts/merge_tables.py"


rule split_entries:
    input:
        tables=TABLE_FILES,
        file=config["split"]["file"] or [],
        made_from=made_from("split_entries", DATA),
    output:
        f"{DATA}/split.parquet",
    log:
        f"{DATA_LOGS}/split_entries.log",
    benchmark:
        f"{DATA_BENCHMARKS}/split_entries.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(60),
    params:
        split=config["split"],
        seed=config["seed"],
        code=code_of("split_entries"),
    script:
        "../scripts/split_entries.py"
