"""Names of rows as sorted numbers."""

import numpy as np
import pyarrow as pa

from qfitlatent.tables.keys import sorted_names


def test_names_are_numbered_in_their_order_over_all_columns():
    first = pa.chunked_array([["b", "a"], [], ["b", "ä"]], pa.string())
    second = pa.chunked_array([["A", "b"]], pa.large_string())
    names, number = sorted_names(first, second)
    expected = np.unique([*first.to_pylist(), *second.to_pylist()], return_inverse=True)
    assert names.tolist() == expected[0].tolist()
    assert number.tolist() == expected[1].tolist()


def test_columns_without_rows_have_no_names():
    names, number = sorted_names(pa.chunked_array([], pa.string()))
    assert len(names) == len(number) == 0
