# Folders of results explain themselves, also after they were copied away.
#
# Needs:  nothing but the configuration
# Makes:  README.md in the folders below; the stages that make pages (audit, evaluation, compare,
#         predictions) write their own

DESCRIBED = {
    "results": RESULTS,
    "data": DATA,
    "tables": f"{DATA}/tables",
    "run": RUN,
    "logs": f"{RESULTS}/logs",
    "benchmarks": f"{RESULTS}/benchmarks",
}
if SOURCE not in ("simulated", "local") and not config["download"]["cache"]:
    DESCRIBED["raw"] = CACHE


rule describe_results:
    input:
        made_from=made_from("describe_results", RUN),
    output:
        **{kind: f"{folder}/README.md" for kind, folder in DESCRIBED.items()},
    log:
        f"{LOGS}/describe_results.log",
    benchmark:
        f"{BENCHMARKS}/describe_results.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 1
    resources:
        mem_mb=by_attempt(1000),
        runtime=by_attempt(10),
    params:
        dataset=config["dataset"],
        run=config["run"],
        source=SOURCE,
        code=code_of("describe_results"),
    script:
        "../scripts/describe_results.py"
