"""Calibrate a trained run on its validation split, in the header of its model.

    python tools/calibrate.py results/runs/real results/data/real [ALTLOCS_UNKNOWN.csv]

The second folder is that of the data set, with tables/ and split.parquet; the list is that of
train.altlocs_unknown. What was fitted, and the figures before and after, are printed and stand in
calibration.json of the run. The weights stay as they are to the bit.
"""

import json
import sys
from pathlib import Path

from qfitlatent.training.calibrate import calibrate_run


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    run, data, *unknown = sys.argv[1:]
    report = calibrate_run(
        run, Path(data) / "tables", Path(data) / "split.parquet", unknown[0] if unknown else None
    )
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
