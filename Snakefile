# From entries to a trained and evaluated model of side-chain distributions.
# `snakemake --cores 8 train` is all it takes; README.md says what each target makes.
from os.path import exists

from snakemake.utils import min_version

min_version("9.5")


# The file of the folder in which snakemake is called; without one, the defaults, which are the same.
if exists("config.yaml"):

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/preprocess.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/describe.smk"


localrules:
    all,
    download,
    preprocess,
    audit,
    train,
    evaluate,
    compare,
    predict,


rule all:
    default_target: True
    input:
        rules.audit_tables.output,
        rules.evaluate_model.output,
        EXPERIMENT_FILES,
        rules.describe_results.output,


rule download:
    input:
        rules.merge_downloads.output,


rule preprocess:
    input:
        rules.merge_tables.output,
        rules.split_entries.output,


rule audit:
    input:
        rules.audit_tables.output,


rule train:
    input:
        RUN_FILES.values(),
        rules.describe_results.output,


rule evaluate:
    input:
        rules.evaluate_model.output,
        EXPERIMENT_FILES,
        rules.describe_results.output,


rule compare:
    input:
        rules.compare_runs.output,


rule predict:
    input:
        rules.predict_structures.output,


onsuccess:
    tell_where_results_are()
