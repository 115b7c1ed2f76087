"""The columns of the evaluation's tables."""

import pyarrow as pa

MIXTURE_COLUMNS = {
    "entry": "entry id as in the tables",
    "chain": "label chain",
    "index": "0-based residue index in the chain",
    "component": "0, 1, ... within the residue",
    "weight": "weight of the component; normalised over the residue",
    **{f"mean{d}_rad": f"mean of chi{d} in radians, null where undefined" for d in range(1, 5)},
    **{f"kappa{d}": f"concentration of chi{d}, null where undefined" for d in range(1, 5)},
}
"""Columns of an external table of kind ``mixture``; the simulator's truth tables have them too."""


SAMPLE_COLUMNS = {
    "entry": "entry id as in the tables",
    "chain": "label chain",
    "index": "0-based residue index in the chain",
    "weight": "optional weight of the sample (1 where the column is absent)",
    **{f"chi{d}_rad": f"chi{d} in radians, null where undefined" for d in range(1, 5)},
}
"""Columns of an external table of kind ``samples``; a packer's single answer is one sample."""


BY_GROUP_SCHEMA = pa.schema(
    [
        pa.field("population", pa.string(), False),
        pa.field("method", pa.string(), False),
        pa.field(
            "reference",
            pa.string(),
            True,
            {b"description": b"null: the figure itself; else method minus reference, paired"},
        ),
        pa.field("metric", pa.string(), False),
        pa.field("group", pa.string(), False),
        pa.field("level", pa.string(), False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64(), True, {b"description": b"2.5 % of the resampled entries"}),
        pa.field("high", pa.float64(), True, {b"description": b"97.5 % of the resampled entries"}),
        pa.field("num_residues", pa.int64(), False),
        pa.field("num_entries", pa.int64(), False),
    ],
    {b"qfitlatent_schema": b"1"},
)


COMPARE_SCHEMA = pa.schema(
    [
        pa.field("population", pa.string(), False),
        pa.field("run", pa.string(), False),
        pa.field(
            "reference",
            pa.string(),
            True,
            {b"description": b"null: the figure itself; else run minus reference, paired"},
        ),
        pa.field("metric", pa.string(), False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64(), True, {b"description": b"2.5 % of the resampled entries"}),
        pa.field("high", pa.float64(), True, {b"description": b"97.5 % of the resampled entries"}),
        pa.field("num_residues", pa.int64(), False),
        pa.field("num_entries", pa.int64(), False),
    ],
    {b"qfitlatent_schema": b"1"},
)
