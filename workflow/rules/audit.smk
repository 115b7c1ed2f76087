# The tables are checked, and shown in a page that opens offline.
#
# Needs:  <data>/tables/*.parquet, <data>/split.parquet
# Makes:  <data>/audit/index.html and the numbers behind it


rule audit_tables:
    input:
        tables=TABLE_FILES,
        split=f"{DATA}/split.parquet",
        made_from=made_from("audit_tables", DATA),
    output:
        report(
            f"{DATA}/audit/index.html",
            caption="../report/audit.rst",
            category="Data",
            labels={"data set": config["dataset"], "page": "audit of the tables"},
        ),
    log:
        f"{DATA_LOGS}/audit_tables.log",
    benchmark:
        f"{DATA_BENCHMARKS}/audit_tables.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(30),
    params:
        audit=config["audit"],
        code=code_of("audit_tables"),
    script:
        "../scripts/audit_tables.py"
