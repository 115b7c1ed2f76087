# The model is trained; or, where average.members names runs, it is their average.
#
# Needs:  <data>/tables/*.parquet, <data>/split.parquet
# Makes:  <run>/model.safetensors, config.yaml, manifest.json, metrics.csv, learning_curve.{png,svg}
#         <run>/state/ while training: what an interrupted training resumes from. It is not an
#         output, because Snakemake deletes outputs of a job that failed.

RUN_FILES = {
    "model": f"{RUN}/model.safetensors",
    "config": f"{RUN}/config.yaml",
    "manifest": f"{RUN}/manifest.json",
    "metrics": f"{RUN}/metrics.csv",
    "curve": report(
        f"{RUN}/learning_curve.svg",
        caption="../report/learning_curve.rst",
        category="Training",
        labels={"run": config["run"], "figure": "learning curve"},
    ),
    "picture": f"{RUN}/learning_curve.png",
}


if config["average"]["members"]:

    rule average_runs:
        input:
            tables=TABLE_FILES,
            split=f"{DATA}/split.parquet",
            members=[f"{run}/model.safetensors" for run in config["average"]["members"]],
            made_from=made_from("average_runs", RUN),
        output:
            **RUN_FILES,
        log:
            f"{LOGS}/average_runs.log",
        benchmark:
            f"{BENCHMARKS}/average_runs.tsv"
        conda:
            "../../envs/qfitlatent.yaml"
        threads: 1
        resources:
            mem_mb=by_attempt(4000),
            runtime=by_attempt(30),
        params:
            model=config["model"],
            average=config["average"],
            seed=config["seed"],
            code=code_of("average_runs"),
        script:
            "../scripts/average_runs.py"

else:

    rule train_model:
        input:
            tables=TABLE_FILES,
            split=f"{DATA}/split.parquet",
            initial=model_input(config["train"]["initial_model"]),
            altlocs_unknown=config["train"]["altlocs_unknown"] or [],
            made_from=made_from("train_model", RUN),
        output:
            **RUN_FILES,
        log:
            f"{LOGS}/train_model.log",
        benchmark:
            f"{BENCHMARKS}/train_model.tsv"
        conda:
            "../../envs/qfitlatent.yaml"
        threads: 8
        resources:
            mem_mb=by_attempt(4000),
            runtime=by_attempt(1440),
            gpu=num_gpus(),
        params:
            model=config["model"],
            train=config["train"],
            seed=config["seed"],
            code=code_of("train_model"),
        script:
            "../scripts/train_model.py"
