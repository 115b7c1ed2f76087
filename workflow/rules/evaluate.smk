# The trained model is measured beside its baselines, and runs are put side by side.
#
# Needs:  <run>/model.safetensors, <data>/tables/*.parquet, <data>/split.parquet
# Makes:  <run>/evaluation/          metrics.json, tables, figures, report.html, cards
#         <run>/evaluation/predicted/    whole models predicted of entries of the split, judged
#         <run>/evaluation/experiment/   beside measurements, where evaluate.experiment names some
#         <results>/compare/         runs side by side on the same residues

EVALUATION = f"{RUN}/evaluation"
EVALUATED_MODEL = model_input(config["evaluate"]["model"]) or f"{RUN}/model.safetensors"


rule judge_models:
    input:
        model=EVALUATED_MODEL,
        download=f"{DATA}/download.parquet",
        split=f"{DATA}/split.parquet",
        altlocs_unknown=config["train"]["altlocs_unknown"] or [],
        made_from=made_from("judge_models", RUN),
    output:
        expand(
            f"{EVALUATION}/predicted/{{table}}.parquet",
            table=["entries", "residues", "bonds"],
        ),
    log:
        f"{LOGS}/judge_models.log",
    benchmark:
        f"{BENCHMARKS}/judge_models.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(120),
        gpu=min(1, num_gpus()),
    params:
        split=config["evaluate"]["split"],
        num_entries=config["evaluate"]["predicted_entries"],
        predict={
            name: config["predict"][name]
            for name in (
                "min_weight",
                "merge_within_degrees",
                "heterogeneous_above",
                "ambiguous_above",
                "device",
            )
        },
        altlocs_unknown=config["train"]["altlocs_unknown"],
        code=code_of("judge_models"),
    script:
        "../scripts/judge_models.py"


rule evaluate_model:
    input:
        model=EVALUATED_MODEL,
        predicted=rules.judge_models.output if JUDGES else [],
        tables=TABLE_FILES,
        split=f"{DATA}/split.parquet",
        altlocs_unknown=config["train"]["altlocs_unknown"] or [],
        external=[method["path"] for method in config["evaluate"]["external"]],
        made_from=made_from("evaluate_model", RUN),
    output:
        metrics=f"{EVALUATION}/metrics.json",
        tables=expand(
            f"{EVALUATION}/{{table}}.parquet",
            table=[
                "predictions",
                "scores",
                "altlocs",
                "by_group",
                "calibration",
                "curves",
                "chi_maps",
            ],
        ),
        report=report(
            f"{EVALUATION}/report.html",
            caption="../report/evaluation.rst",
            category="Evaluation",
            labels={"run": config["run"], "page": "evaluation on held-out clusters"},
        ),
    log:
        f"{LOGS}/evaluate_model.log",
    benchmark:
        f"{BENCHMARKS}/evaluate_model.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 4
    resources:
        mem_mb=by_attempt(3000),
        runtime=by_attempt(60),
    params:
        evaluate={
            name: x
            for name, x in config["evaluate"].items()
            if name not in ("model", "experiment", "experiment_structures")
        },
        altlocs_unknown=config["train"]["altlocs_unknown"],
        truth=f"{DATA}/simulated" if SOURCE == "simulated" else None,
        code=code_of("evaluate_model"),
    script:
        "../scripts/evaluate_model.py"


rule compare_experiment:
    input:
        measured=table_of_measurements,
        model=EVALUATED_MODEL,
        structures=config["evaluate"]["experiment_structures"] or [],
        download=[] if config["evaluate"]["experiment_structures"] else f"{DATA}/download.parquet",
        made_from=made_from("compare_experiment", RUN),
    output:
        multiext(f"{EVALUATION}/experiment/experiment", ".json", ".csv", ".pairs.csv"),
    log:
        f"{LOGS}/compare_experiment.log",
    benchmark:
        f"{BENCHMARKS}/compare_experiment.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 2
    resources:
        mem_mb=by_attempt(3000),
        runtime=by_attempt(60),
        gpu=min(1, num_gpus()),
    params:
        predict={"device": config["predict"]["device"]},
        bootstrap_samples=config["evaluate"]["bootstrap_samples"],
        seed=config["evaluate"]["seed"],
        code=code_of("compare_experiment"),
    script:
        "../scripts/compare_experiment.py"


EXPERIMENT_FILES = rules.compare_experiment.output if config["evaluate"]["experiment"] else []


rule compare_runs:
    input:
        runs=finished_evaluations,
        made_from=made_from("compare_runs", f"{RESULTS}/compare"),
    output:
        multiext(f"{RESULTS}/compare/compare", ".parquet", ".json"),
        report(
            f"{RESULTS}/compare/compare.html",
            caption="../report/compare.rst",
            category="Evaluation",
            labels={"run": "all", "page": "runs side by side"},
        ),
    log:
        f"{RESULTS}/logs/compare_runs.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_runs.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 1
    resources:
        mem_mb=by_attempt(3000),
        runtime=by_attempt(30),
    params:
        bootstrap_samples=config["evaluate"]["bootstrap_samples"],
        seed=config["evaluate"]["seed"],
        code=code_of("compare_runs"),
    script:
        "../scripts/compare_runs.py"
