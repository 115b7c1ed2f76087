# A trained model, by default the one that ships, is applied to a folder of structures.
#
# Needs:  the model predict.model, and the folder predict.structures
# Makes:  <run>/predictions/<id>.mixture.parquet, <id>_ensemble.cif, <id>.html ..., summary.csv and failures.csv


rule predict_structures:
    input:
        model=predicting_model,
        structures=folder_of_structures,
        made_from=made_from("predict_structures", RUN),
    output:
        # Not the folder: Snakemake would delete it, and what an interrupted job has finished.
        f"{RUN}/predictions/summary.csv",
    log:
        f"{LOGS}/predict_structures.log",
    benchmark:
        f"{BENCHMARKS}/predict_structures.tsv"
    conda:
        "../../envs/qfitlatent.yaml"
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
        gpu=min(1, num_gpus()),
    params:
        predict=config["predict"],
        code=code_of("predict_structures"),
    script:
        "../scripts/predict_structures.py"
