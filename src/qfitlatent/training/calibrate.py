"""Calibration on held-out residues: the width of the density, p_heterogeneous and b_rank.

One rule for all residues (``model/calibration.py``), fitted on the validation split after training,
so that regions of highest density cover what they say and probabilities are frequencies.

Shapes: M observed rows, S draws for each, N residues, D=4 chi.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file, write_json
from qfitlatent.base.models import MODEL_FILE
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.density.protocol import Head
from qfitlatent.density.width import Width
from qfitlatent.model.batch import collate
from qfitlatent.model.calibration import Calibration
from qfitlatent.model.checkpoint import load_model, write_calibration
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.network import DensityNetwork
from qfitlatent.model.outputs import Outputs

LEVELS = (0.5, 0.8, 0.95)
"""Nominal coverage of the regions of highest density (SPEC 8)."""

NUM_ROWS = 6000
"""Observed rows that the width is fitted to: coverage is then known to 0.7 points."""

NUM_DRAWS = 16
"""Draws for each row, which together say how much of the density lies above the observed."""

COVERAGE_PENALTY = 20.0
"""Nats for the squared error of a coverage: 2 points off cost as much as 0.008 nats."""

START = Width(temperature=1.0, kappa_scale=1.0, flat=1e-3)
STEPS = (
    *((0.2, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 1.5)),
    *((0.2, 0.0, -1.5), (0.0, 0.3, 1.5), (0.2, 0.3, 0.0)),
)
"""First steps of the search, in the logarithms of temperature, kappa scale and flat share: each
alone, and pairs of which one makes up for the other."""

NUM_HALVINGS = 4


class Held(NamedTuple):
    """What of the held-out residues the fit reads: s (M,width) and token (M,) of the rows."""

    s: Tensor
    token: Tensor
    chi: Tensor  # (M,D)
    defined: Tensor  # (M,D) bool
    occupancy: Tensor  # (M,)
    outputs: Outputs | None  # of all N residues
    heterogeneous: Tensor  # (N,)
    b_rank: Tensor  # (N,)


def calibrate_run(
    run: str | Path,
    tables_dir: str | Path,
    split_path: str | Path,
    altlocs_unknown: str | Path | None = None,
) -> dict[str, Any]:
    """Fits the calibration on the validation split and writes it into the model file of the run.

    The weights stay as they are to the bit. ``calibration.json`` beside the model holds what is
    returned: the calibration, and the figures before and after.

    Raises QfitLatentError: no model, no validation entry, a list that cannot be read.
    """
    loaded = load_model(run)
    data = Dataset.load(tables_dir, split_path, ("validation",), altlocs_unknown=altlocs_unknown)
    calibration, report = fit_calibration(loaded.model, data)
    write_calibration(loaded.path, calibration)
    folder = loaded.path.parent
    report = {"calibration": calibration.to_dict(), **report}
    write_json(folder / "calibration.json", report)
    manifest = folder / "manifest.json"
    if manifest.is_file():
        record = read_json(manifest)
        size = loaded.path.stat().st_size
        changed = {"num_bytes": size, "sha256": sha256_file(loaded.path)}
        record["outputs"][MODEL_FILE] |= changed
        write_json(manifest, record)
    return report


@torch.no_grad()
def fit_calibration(
    model: DensityNetwork, data: Dataset, seed: int = 0
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration of a model on a data set, and figures before and after."""
    model.calibrate(None)
    generator = torch.Generator().manual_seed(seed)
    held = _held(model, data, generator)
    width, figures = _fit_width(model, held, generator)
    calibration = Calibration(width)
    report: dict[str, Any] = {"num_rows": len(held.token), "density": figures}
    if held.outputs is not None:
        slope, offset = _fit_line(held.outputs.heterogeneous_logit, held.heterogeneous)
        known = held.b_rank.isfinite() & held.outputs.b_rank_mean.isfinite()
        error = (held.b_rank - held.outputs.b_rank_mean)[known]
        scale = float((error / held.outputs.b_rank_spread[known]).square().mean().sqrt())
        calibration = Calibration(width, slope, offset, scale)
        report["outputs"] = {
            name: {
                "p_heterogeneous_nll": _mean(*said.heterogeneous_nll(held.heterogeneous)),
                "b_rank_nll": _mean(*said.b_rank_nll(held.b_rank)),
            }
            for name, said in (
                ("before", held.outputs),
                ("after", calibration.outputs(held.outputs)),
            )
        }
    return calibration, report


def _held(model: DensityNetwork, data: Dataset, generator: torch.Generator) -> Held:
    """The representation of ``NUM_ROWS`` rows drawn from all, and the outputs of all residues."""
    num_rows = sum(len(protein.row_residue) for protein in data)
    chosen = torch.zeros(num_rows, dtype=torch.bool)
    chosen[torch.randperm(num_rows, generator=generator)[:NUM_ROWS]] = True
    rows: list[tuple[Tensor, ...]] = []
    said: list[Outputs] = []
    first = 0
    for protein in data:
        s = model.encode(collate([protein]))
        at = chosen[first : first + len(protein.row_residue)]
        first += len(at)
        of = protein.row_residue[at]
        observed = (protein.chi, protein.defined, protein.occupancy)
        rows.append((s[of], protein.token[of], *(x[at] for x in observed)))
        outputs = model.raw_outputs(s, protein.token)
        if outputs is not None:
            said.append(outputs)
    if not chosen.any():
        raise QfitLatentError(
            "The validation split shows no chi, so that nothing can be calibrated on it: "
            "add entries."
        )
    s, token, chi, defined, occupancy = (torch.cat(x) for x in zip(*rows, strict=True))
    parts = zip(*(vars(one).values() for one in said), strict=True)
    together = Outputs(*map(torch.cat, parts)) if said else None
    heterogeneous, b_rank = (
        torch.cat([getattr(protein, name) for protein in data])
        for name in ("heterogeneous", "b_rank")
    )
    return Held(s, token, chi, defined, occupancy, together, heterogeneous, b_rank)


class _Remembered:
    """A head that works out its steps once, for the same points under one width after another."""

    def __init__(self, head: Head) -> None:
        self.head, self.kappa_min = head, head.kappa_min
        self.width: Width | None = None
        self.own: Tensor | None = None
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []
        self.at = 0

    def residue(self, s: Tensor) -> Tensor:
        """As the head's: a density calls it once for all its points, and then step by step."""
        self.at = 0
        if self.own is None:
            self.own = self.head.residue(s)
        return self.own

    def step(
        self, d: int, residue: Tensor, chi: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.at == len(self.steps):
            self.steps.append(self.head.step(d, residue, chi, known))
        components = self.steps[self.at]
        self.at += 1
        return components if self.width is None else self.width(*components)

    def to(self, *args: Any, **kwargs: Any) -> _Remembered:
        raise NotImplementedError("steps are remembered where they were made")


class _Figures:
    """NLL and coverage under one width after another, from draws made once, under ``base``.

    Under another width each draw weighs by the ratio of the two densities.
    """

    def __init__(
        self, model: DensityNetwork, held: Held, base: Width | None, generator: torch.Generator
    ) -> None:
        self.num, self.occupancy = len(held.token), held.occupancy
        model.calibrate(None if base is None else Calibration(base))
        draws = model.density(held.s, held.token).sample(NUM_DRAWS, generator)
        model.calibrate(None)
        self.density = model.density(held.s, held.token)
        if isinstance(self.density, AutoregressiveDensity):
            self.density = replace(self.density, head=_Remembered(self.density.head))
        self.points = torch.cat([held.chi[None], draws]).flatten(0, 1)
        self.defined = held.defined.repeat(1 + NUM_DRAWS, 1)
        self.rows = torch.arange(self.num).repeat(1 + NUM_DRAWS)
        self.base = self.log_prob(base)[1]

    def log_prob(self, width: Width | None) -> tuple[Tensor, Tensor]:
        """(M,) of the observed, (S,M) of the draws."""
        density = self.density
        if isinstance(density, AutoregressiveDensity):
            cast("_Remembered", density.head).width = width
        elif width is not None:
            mixture = density.as_mixture()
            log_weight, mean, kappa = width(mixture.log_weight, mixture.mean, mixture.kappa)
            density = replace(mixture, log_weight=log_weight, mean=mean, kappa=kappa)
        values = density.log_prob(self.points, self.defined, self.rows)
        values = values.view(1 + NUM_DRAWS, self.num)
        return values[0], values[1:]

    def under(self, width: Width | None) -> dict[str, float]:
        """nll in nats, and the coverage of each of ``LEVELS``."""
        observed, drawn = self.log_prob(width)
        weight = (drawn - self.base).softmax(0)
        # What is above the observed, of S draws; between two counts nothing is known.
        above = NUM_DRAWS * (weight * (drawn > observed)).sum(0)
        total = self.occupancy.sum()
        found = {"nll": _mean(-(self.occupancy * observed).sum(), total)}
        for level in LEVELS:
            covered = (level * (NUM_DRAWS + 1) - above).clamp(0, 1)
            found[_name(level)] = _mean((self.occupancy * covered).sum(), total)
        return found

    def cost(self, width: Width) -> float:
        found = self.under(width)
        errors = sum((found[_name(level)] - level) ** 2 for level in LEVELS)
        return found["nll"] + COVERAGE_PENALTY * errors


def _fit_width(
    model: DensityNetwork, held: Held, generator: torch.Generator
) -> tuple[Width, dict[str, Any]]:
    """The width with the least NLL and error of coverage, by a search in steps that halve.

    It is searched twice: the second time on draws from where the first has ended.
    """
    start = _Figures(model, held, None, generator)
    width = _search(START, start.cost)
    width = _search(width, _Figures(model, held, width, generator).cost)
    after = _Figures(model, held, width, generator).under(width)
    return width, {"before": start.under(None), "after": after}


def _search(width: Width, cost: Callable[[Width], float]) -> Width:
    """Along each step as long as it helps, then with steps of half the length."""
    least = cost(width)
    for halving in range(NUM_HALVINGS):
        moved = True
        while moved:
            moved = False
            for step, sign in itertools.product(STEPS, (1, -1)):
                tried = _stepped(width, step, sign * 0.5**halving)
                if (value := cost(tried)) < least - 1e-5:
                    width, least, moved = tried, value, True
    return width


def _stepped(width: Width, step: tuple[float, ...], share: float) -> Width:
    """Another width, by a step in logarithms; at most half of a density is flat."""
    temperature, kappa_scale, flat = torch.tensor(step).mul(share).exp().tolist()
    return Width(
        width.temperature * temperature,
        width.kappa_scale * kappa_scale,
        min(0.5, width.flat * flat),
    )


def _fit_line(logit: Tensor, truth: Tensor) -> tuple[float, float]:
    """Slope and offset of the log odds that make the observed frequencies likeliest (Platt 1999).

    logit (N,), truth (N,) 0, 1 or nan. Where one of the two was never seen, they stay.
    """
    known = truth.isfinite() & logit.isfinite()
    logit, truth = logit[known].double(), truth[known].double()
    if not 0 < float(truth.sum()) < len(truth):
        return 1.0, 0.0
    line = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # log slope, offset
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = F.binary_cross_entropy_with_logits(logit * line[0].exp() + line[1], truth)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(line.detach()[0].exp()), float(line.detach()[1])


def _name(level: float) -> str:
    return f"coverage_{round(100 * level)}"


def _mean(total: Tensor, weight: Tensor) -> float:
    return float(total / weight)
