"""The curves over the scale, as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

PANELS = (
    ("classifier", "fd", "Frechet distance, classifier"),
    ("classifier", "kid", "KID, classifier"),
    ("imagenet", "fd", "Frechet distance, ImageNet"),
)


def save(result: dict, path: Path) -> None:
    """Plot distances over the scale (lower is better), without a prompt above and with one below."""
    panels = [panel for panel in PANELS if panel[0] in result["points"][0]]  # the public network may be missing
    steps = min(row["steps"] for row in result["points"] if row["method"] == "unguided")
    figure, axes = plt.subplots(2, len(panels), figsize=(5 * len(panels), 8), layout="constrained")
    for line, prompted in zip(axes, (False, True)):
        rows = [row for row in result["points"] if row["prompted"] == prompted]
        for panel, (network, number, label) in zip(line, panels):
            for method in dict.fromkeys(row["method"] for row in rows):
                same = [row for row in rows if row["method"] == method]
                means = [row[network][number]["mean"] for row in same]
                spreads = [row[network][number]["sd"] or 0 for row in same]
                if method == "unguided":
                    for row, mean, style in zip(same, means, ("-", "--")):
                        panel.axhline(mean, color="black", linestyle=style, label=f"unguided, {row['steps']} steps")
                else:
                    at_steps = [i for i, row in enumerate(same) if row["steps"] == steps]
                    scales = [same[i]["cfg" if method == "CFG" else "scale"] for i in at_steps]
                    chosen = [means[i] for i in at_steps], [spreads[i] for i in at_steps]
                    panel.errorbar(scales, chosen[0], chosen[1], marker="o", capsize=3, label=method)
            ground = "prompt" if prompted else "no prompt"
            floor = result["real_against_real"][ground][network][number]["mean"]
            panel.axhline(floor, color="grey", linestyle=":", label="real against real")
            panel.set(xscale="log", xlabel="scale", title=f"{'with' if prompted else 'without'} a prompt: {label}")
            panel.legend(fontsize=8)
    figure.suptitle(f"{result['seeds']} x {result['samples']} pictures a point, {steps} steps; bars: sd over seeds")
    figure.savefig(path, dpi=80)
