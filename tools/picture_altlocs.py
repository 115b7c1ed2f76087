"""Draw side chains as they were deposited, with their altlocs, above those that were predicted.

    qfitlatent predict 1nls.pdb -o predicted
    python tools/picture_altlocs.py 1nls.pdb predicted/1nls_ensemble.cif A:65 A:21 A:25 altlocs.png

Both rows of a column look from the same side. A predicted conformer has the colour of the deposited
one that it is nearest to, if that is within 1.5 angstrom, so that equal colours can be compared.
"""

import sys
from pathlib import Path

import gemmi
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

BACKBONE = ("N", "CA", "C", "O")
COLOURS = ("#0f766e", "#d97706", "#7c3aed")
UNMATCHED = "#78716c"
ELEMENTS = {"N": "#2563eb", "O": "#dc2626", "S": "#ca8a04"}
GREY, INK = "#9ca3af", "#1f2937"
BOND = 1.95
MATCH = 1.5
TILT = np.radians(-20)

Conformer = tuple[str, float, dict[str, np.ndarray]]
"""Label, occupancy and atoms by name, each (3,) in angstrom."""


def conformers(path: str, chain: str, number: str) -> tuple[str, list[Conformer]]:
    """Title and conformers of one residue, highest occupancy first; shared atoms stand in each."""
    structure = gemmi.read_structure(path)
    structure.remove_hydrogens()
    residue = structure[0][chain][number][0]
    side = [atom for atom in residue if atom.name not in (*BACKBONE, "CB")]
    found = []
    for label in sorted({atom.altloc for atom in side if atom.altloc != "\0"}) or ["\0"]:
        atoms = {a.name: np.array(a.pos.tolist()) for a in residue if a.altloc in (label, "\0")}
        for atom in residue:
            atoms.setdefault(atom.name, np.array(atom.pos.tolist()))
        own = [atom.occ for atom in side if atom.altloc == label]
        found.append((label.strip("\0"), float(np.mean(own)), atoms))
    return f"{residue.name.title()} {number}", sorted(found, key=lambda c: -c[1])


def distance(first: Conformer, second: Conformer) -> float:
    """Root mean square distance of the side-chain atoms that both have, angstrom."""
    names = [n for n in first[2] if n in second[2] and n not in BACKBONE]
    return float(np.sqrt(np.mean([np.sum((first[2][n] - second[2][n]) ** 2) for n in names])))


def view(shown: list[Conformer]) -> np.ndarray:
    """Rotation (3, 3) whose first two rows span the picture: widest spread, side chain up."""
    points = np.array([x for c in shown for n, x in c[2].items() if n not in ("N", "C", "O")])
    alpha = shown[0][2]["CA"]
    _, _, axes = np.linalg.svd(points - points.mean(0))
    plane = axes[:2]
    up = plane @ (points.mean(0) - alpha)
    up /= np.linalg.norm(up)
    turn = np.array([[up[1], -up[0]], [up[0], up[1]]])
    across, upward = turn @ plane
    towards = np.cross(across, upward)
    # Turned a little about the vertical, so that nothing stands exactly behind something else.
    c, s = np.cos(TILT), np.sin(TILT)
    return np.array([c * across + s * towards, upward, c * towards - s * across])


def colours_of(predicted: list[Conformer], deposited: list[Conformer]) -> list[str]:
    """The colour of each predicted conformer: of its deposited partner, nearest pairs first."""
    pairs = sorted(
        (distance(first, second), i, k)
        for i, first in enumerate(predicted)
        for k, second in enumerate(deposited)
    )
    found: dict[int, int] = {}
    for apart, i, k in pairs:
        if apart < MATCH and i not in found and k not in found.values():
            found[i] = k
    return [COLOURS[found[i]] if i in found else UNMATCHED for i in range(len(predicted))]


def draw(ax: Axes, shown: list[Conformer], colours: list[str], look: np.ndarray) -> None:
    """Sticks, painted from the back to the front; all elements but carbon have their own colour."""
    origin = shown[0][2]["CA"]
    bonds = []
    for (_, _, atoms), colour in reversed(list(zip(shown, colours, strict=True))):
        flat = {name: look @ (x - origin) for name, x in atoms.items()}
        names = list(flat)
        paint = {n: GREY if n in BACKBONE else ELEMENTS.get(n[0], colour) for n in names}
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                if np.linalg.norm(flat[a] - flat[b]) < BOND:
                    bonds.append((flat[a], flat[b], paint[a], paint[b]))
    for order, (a, b, *paints) in enumerate(
        sorted(bonds, key=lambda bond: bond[0][2] + bond[1][2])
    ):
        # A white rim around the middle of a bond shows which of two crossing bonds is in front.
        if GREY not in paints:
            rim = np.array([a + 0.25 * (b - a), b + 0.25 * (a - b)])
            ax.plot(rim[:, 0], rim[:, 1], color="white", lw=10, zorder=order, solid_capstyle="butt")
        for end, colour in zip((a, b), paints, strict=True):
            half = np.array([end, (a + b) / 2])
            ax.plot(half[:, 0], half[:, 1], color=colour, lw=6, zorder=order)
    ax.set_aspect("equal")
    ax.axis("off")
    for place, ((label, occupancy, _), colour) in enumerate(zip(shown, colours, strict=True)):
        ax.text(
            0.5 + (place - (len(shown) - 1) / 2) * 0.3, -0.02, f"{label} {occupancy:.2f}".strip(),
            color=colour, size=14, weight="bold", ha="center", va="top", transform=ax.transAxes,
        )  # fmt: skip


def main() -> None:
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    deposited_path, predicted_path, *residues, picture = sys.argv[1:]
    plt.rcParams["lines.solid_capstyle"] = "round"
    figure, axes = plt.subplots(
        2, len(residues), figsize=(3.4 * len(residues), 6.6), squeeze=False, layout="constrained"
    )
    for column, residue in enumerate(residues):
        title, deposited = conformers(deposited_path, *residue.split(":"))
        _, predicted = conformers(predicted_path, *residue.split(":"))
        look = view([*deposited, *predicted])
        draw(axes[0, column], deposited, list(COLOURS[: len(deposited)]), look)
        draw(axes[1, column], predicted, colours_of(predicted, deposited), look)
        axes[0, column].set_title(title, size=16, color=INK, weight="bold", pad=12)
        boxes = [ax.dataLim for ax in axes[:, column]]
        low = np.min([box.min for box in boxes], axis=0) - 0.4
        high = np.max([box.max for box in boxes], axis=0) + 0.4
        half = max(3.2, *(high - low) / 2)
        for ax in axes[:, column]:
            ax.set_xlim((low + high)[0] / 2 - half, (low + high)[0] / 2 + half)
            ax.set_ylim((low + high)[1] / 2 - half, (low + high)[1] / 2 + half)
    for ax, words in zip(axes[:, 0], ("deposited", "predicted"), strict=True):
        ax.text(
            -0.02, 0.5, words, rotation=90, size=16, color=INK, ha="right", va="center",
            transform=ax.transAxes,
        )  # fmt: skip
    figure.savefig(picture, dpi=100)
    print(f"{picture}: {Path(picture).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
