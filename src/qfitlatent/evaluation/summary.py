"""The figures of an evaluation that matter most, as lines for the terminal.

Light: the workflow imports it when its jobs are done.
"""

from pathlib import Path

from qfitlatent.base.files import read_json

FIGURES = (
    ("multiconformer", "nll", 1, "nats per residue with altlocs (lower is better)"),
    ("multiconformer", "recall", 100, "% of the altlocs found"),
    ("single", "all_within_20", 100, "% of the single conformers within 20 degrees in every chi"),
)
"""Population, figure, factor and words; the model beside the library by residue type."""

PREDICTED = (
    ("joint", "predicted models"),
    ("heaviest", "heaviest modes"),
    ("deposited", "deposited models"),
)


def summary(metrics: str | Path, model: str | Path) -> list[str]:
    """Lines for the figures of ``metrics.json``; none where it is not there, or older than the
    ``model`` that it should be about."""
    metrics, model = Path(metrics), Path(model)
    if not metrics.is_file():
        return []
    if model.is_file() and model.stat().st_mtime_ns > metrics.stat().st_mtime_ns:
        return []
    found = read_json(metrics)
    populations = found["populations"]
    lines = []
    for population, figure, factor, words in FIGURES:
        methods = populations.get(population, {}).get("methods", {})
        shown = [
            f"{name} {factor * methods[method][figure]['value']:.3g}"
            for method, name in (("model", "model"), ("type_library", "type library"))
            if methods.get(method, {}).get(figure, {}).get("value") is not None
        ]
        if shown:
            lines.append(f"{', '.join(shown)}: {words}")
    if predicted := found.get("predicted_models"):
        models = predicted["models"]
        shown = [
            f"{words} {models[name]['clashes']['value']:.2g}"
            for name, words in PREDICTED
            if models[name]["clashes"]["value"] is not None
        ]
        lines += [f"{', '.join(shown)}: clashes per 100 residues"] if shown else []
    return lines
