"""Trouble for jobs on the test cluster: Python runs this when it starts, before a job's script.

It is copied into ``src/`` of the checkout that runs on Slurm, which jobs have on their path; no
code that makes results changes. The first ``simulate_entries`` job fails, once. Every
``preprocess_entries`` job takes ``QFITLATENT_TEST_GREEDY_MB`` for some seconds: more than its first
attempt asks for, and less than its second.
"""

import os
import sys
import time

_script = next((word for word in sys.orig_argv if word.endswith(".py")), "")

if _script.endswith(".simulate_entries.py"):
    try:
        os.mkdir("failed_once")
    except FileExistsError:
        pass
    else:
        sys.exit("This job fails once, for the test.")

if _script.endswith(".preprocess_entries.py"):
    memory = bytearray(b"x") * (int(os.environ["QFITLATENT_TEST_GREEDY_MB"]) * 1_000_000)
    time.sleep(4)  # the cluster looks every second
    del memory
