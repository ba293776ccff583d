"""Where is each guidance at its best? `python -m benchmarks.quality.scan` draws a few hundred pictures a line.

Writes scan.json, from which the lines of the published table were chosen.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from demo import checkpoint
from demo.data import pictures

from .judge import REFERENCE
from .lines import IMAGE, Line, Studio
from .measures import Judge

FOLDER = Path(__file__).parent
SEED = 100  # no repetition of the published table has it


def lines() -> "list[Line]":
    """The unguided line first."""
    free = [Line(), *(Line(steps=steps) for steps in (16, 20))]
    free += [Line("SAG, image", 1)] + [Line("SAG, image", scale, 3) for scale in (0.5, 1, 2)]
    windows = ((1, 0, 0.4), (2, 0, 0.4), (1, 0, 0.8), (1, 0.2, 0.8), (2, 0.2, 0.8))
    free += [Line("SAG, image", scale, 3, start, end) for scale, start, end in windows]
    free += [replace(IMAGE, blur_sigma=blur) for blur in (1.5, 5)] + [replace(IMAGE, detail=0.1)]
    variants = ("feathered", "threshold 1.3", "up block", "low band", "high band", "random mask")
    free += [replace(IMAGE, guidance=f"SAG, image, {variant}") for variant in variants]
    free += [replace(IMAGE, guidance="SAG, image, everything blurred", scale=scale) for scale in (0.25, 0.5, 1)]
    free += [Line("SAG, noise", *both) for both in ((-0.5, 1), (0.3, 1), (0.3, 3), (1, 3))]
    free += [Line("unsharp mask", scale, blur) for blur in (1, 2, 3) for scale in (0.1, 0.2)]
    free += [Line("unsharp mask", scale, 2, steps=steps) for steps in (16, 20) for scale in (0.1, 0.2)]
    free += [Line("last prediction", 0.2)]
    free += [Line("PAG", scale) for scale in (0.5, 1, 2)] + [Line("SEG", scale) for scale in (1.25, 2, 4)]
    prompted = [Line()] + [Line(cfg=cfg) for cfg in (1.5, 2, 3)]
    prompted += [replace(IMAGE, scale=scale, cfg=1.5) for scale in (0.5, 1)] + [Line("SAG, noise", 0.3, 3, cfg=1.5)]
    prompted += [Line("unsharp mask", scale, 2, cfg=1.5) for scale in (0.1, 0.2)]
    return free + [replace(line, prompted=True) for line in prompted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=192, help="pictures for each line")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the demo model")
    parser.add_argument("--compile", action="store_true", help="draw 1.4 times as fast on a CPU; needs a C++ compiler")
    parser.add_argument("--weights", type=Path, default=checkpoint.WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where pictures are kept")
    parser.add_argument("--out", type=Path, default=FOLDER / "scan.json")
    args = parser.parse_args()
    studio = Studio(args.weights, args.cache, getattr(torch, args.dtype), args.compile)
    judge = Judge(pictures(REFERENCE, 32, args.cache / "pictures").images, ("faults",))
    rows = []
    print("| | evaluations | strength | FD | recall | coverage | spectrum, dB |\n" + "| --- " * 7 + "|")
    for line in lines():
        images, strength = studio.draw(line, SEED, args.samples)
        named = {"title": line.title, "evaluations": line.evaluations, "strength": strength}
        rows.append({**asdict(line), **named, **judge(images)})
        print(row_of(rows[-1]), flush=True)
    result = {"weights_sha256": studio.digest, "samples": args.samples, "dtype": args.dtype, "lines": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def row_of(row: dict) -> str:
    ground = "prompt: " if row["prompted"] else ""
    names = ("FD, faults", "recall, faults", "coverage, faults", "spectrum, dB")
    numbers = " | ".join(f"{row[name]:.2f}" for name in names)
    return f"| {ground}{row['title']} | {row['evaluations']} | {row['strength']:.1%} | {numbers} |"


if __name__ == "__main__":
    main()
