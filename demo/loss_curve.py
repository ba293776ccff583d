"""Plot the loss of the trainings that made the weights: `python -m demo.loss_curve` draws it beside them."""

import json

import matplotlib

from .checkpoint import WEIGHTS

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# The first began with nothing and weighted by min-SNR, the second went on from there as `train` does now.
RUNS = ("sag_demo_first.loss.jsonl", "sag_demo.loss.jsonl")


def main() -> None:
    figure, panels = plt.subplots(1, len(RUNS), figsize=(9, 3.5), layout="constrained")
    for axes, run in zip(panels, RUNS):
        rows = [json.loads(line) for line in (WEIGHTS.parent / run).read_text().splitlines()]
        axes.plot([row["step"] for row in rows], [row["loss"] for row in rows])
        axes.set(title=run, xlabel="step", ylabel="weighted loss", yscale="log")
    figure.savefig(WEIGHTS.with_suffix(".loss.png"), dpi=80)


if __name__ == "__main__":
    main()
