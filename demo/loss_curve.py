"""Plot the loss of the training that made the weights: `python -m demo.loss_curve` draws it beside them."""

import json

import matplotlib

from .checkpoint import WEIGHTS

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main() -> None:
    rows = [json.loads(line) for line in WEIGHTS.with_suffix(".loss.jsonl").read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot([row["step"] for row in rows], [row["loss"] for row in rows])
    axes.set(xlabel="step", ylabel="loss, weighted by min-SNR", yscale="log")
    figure.savefig(WEIGHTS.with_suffix(".loss.png"), dpi=80)


if __name__ == "__main__":
    main()
