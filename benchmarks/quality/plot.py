"""The lines of the table as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

PANELS = {"FD, faults": "Frechet distance (lower is better)", "spectrum, dB": "spectrum, dB off (lower is better)"}


def save(result: dict, path: Path) -> None:
    """Plot the measures of every line, one table under the other; whiskers are one sd."""
    tables = result["tables"]
    heights = [len(rows) for rows in tables.values()]
    figure, axes = plt.subplots(
        len(tables),
        len(PANELS),
        figsize=(13, 2 + 0.33 * sum(heights)),
        height_ratios=heights,
        sharey="row",
        layout="constrained",
        squeeze=False,
    )
    for line, (ground, rows) in zip(axes, tables.items()):
        for panel, (name, label) in zip(line, PANELS.items()):
            means, spreads = ([row[name][part] or 0 for row in rows] for part in ("mean", "sd"))
            colours = ["0.6" if not row.get("guidance") else "C0" for row in rows]
            panel.barh([row["title"] for row in rows], means, xerr=spreads, color=colours)
            panel.axvline(means[1], color="black", linewidth=0.8)  # unguided
            panel.set(title=ground, xlabel=label)
        line[0].invert_yaxis()
    figure.suptitle(f"{result['seeds']} x {result['samples']} pictures a line, {result['steps']} steps")
    figure.savefig(path, dpi=80)
