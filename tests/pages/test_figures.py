"""Pictures: the same numbers give the same bytes, and a curve shows what there is."""

import re

from qfitlatent.pages.figures import draw_learning_curve, new_figure, save


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        figure, axes = new_figure(3, 2)
        axes.plot([0, 1], [1, 0], label="line")
        axes.legend()
        assert save(figure, tmp_path / name / "picture.v2") == tmp_path / name / "picture.v2.svg"
    for suffix in (".svg", ".png"):
        one, two = ((tmp_path / n / f"picture.v2{suffix}").read_bytes() for n in ("one", "two"))
        assert one == two


def test_a_learning_curve_shows_the_columns_that_there_are(tmp_path):
    rows = [{"epoch": e, "train_loss": 1 / e, "validation_loss": 2 / e} for e in (1, 2, 3)]
    draw_learning_curve(rows, tmp_path / "short")
    draw_learning_curve([row | {"validation_nll_single": 1.0} for row in rows], tmp_path / "long")
    lines = [
        len(re.findall(r'id="line2d_\d+"', (tmp_path / f"{name}.svg").read_text()))
        for name in ("short", "long")
    ]
    assert lines[0] < lines[1]
