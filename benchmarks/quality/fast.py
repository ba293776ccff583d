"""What can be saved? `python -m benchmarks.quality.fast` compares cheaper guidance with the full one, in fast.json.

The cost is counted in evaluations of the network, relative to no guidance, for pictures without a prompt and with CFG;
PSNR is that of the pictures against full guidance from the same noise.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from demo import checkpoint
from demo.data import pictures

from .guidances import SAME_BATCH
from .judge import REFERENCE
from .lines import IMAGE, Line, Studio
from .measures import Judge

FOLDER = Path(__file__).parent
SEED = 0  # as in the first repetition of the table


def lines() -> "list[Line]":
    """No guidance and full guidance first."""
    cheaper = [replace(IMAGE, every=every) for every in (2, 3)] + [replace(IMAGE, guidance=SAME_BATCH)]
    return [Line(), IMAGE, *cheaper, Line("unsharp mask", 0.2, 2), Line("last prediction", 0.2)]


def psnr(got: Tensor, expected: Tensor) -> float:
    """In decibels, of pictures of 255 levels."""
    error = (got.double() - expected.double()).square().mean().sqrt()
    return (20 * torch.log10(255 / error)).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=1000, help="pictures for each line")
    parser.add_argument("--compile", action="store_true", help="draw 1.4 times as fast on a CPU; needs a C++ compiler")
    parser.add_argument("--weights", type=Path, default=checkpoint.WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where pictures are kept")
    args = parser.parse_args()
    studio = Studio(args.weights, args.cache, torch.bfloat16, args.compile)
    judge = Judge(pictures(REFERENCE, 32, args.cache / "pictures").images, ["faults"])
    full, _ = studio.draw(IMAGE, SEED, args.samples)
    rows = []
    print("| | evaluations | cost | cost beside CFG | PSNR to full guidance, dB | FD | spectrum, dB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for line in lines():
        images, _ = studio.draw(line, SEED, args.samples)
        values = judge(images)
        row = {
            "title": line.title,
            "evaluations": line.evaluations,
            "cost": line.evaluations / Line().evaluations,
            "cost_with_cfg": replace(line, cfg=2).evaluations / Line(cfg=2).evaluations,
            "psnr": None if line == IMAGE else psnr(images, full),
            "fd": values["FD, faults"],
            "spectrum": values["spectrum, dB"],
        }
        rows.append(row)
        near = f"{row['psnr']:.1f}" if row["psnr"] else ""
        costs = f"{row['evaluations']} | {row['cost']:.2f} | {row['cost_with_cfg']:.2f}"
        print(f"| {row['title']} | {costs} | {near} | {row['fd']:.2f} | {row['spectrum']:.2f} |", flush=True)
    (FOLDER / "fast.json").write_text(json.dumps({"samples": args.samples, "lines": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
