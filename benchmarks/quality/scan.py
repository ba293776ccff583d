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
    plain = [Line(), Line(prompted=True)]
    free = [Line("SAG, image", scale, blur) for blur in (1, 2, 3) for scale in (0.5, 1, 2)]
    free += [Line("SAG, image", scale, end=end) for scale, end in ((1, 0.5), (1, 0.8), (2, 0.8))]
    windows = ((1, 0.0, 0.8), (2, 0.0, 0.8), (1, 0.0, 0.6), (2, 0.0, 0.4), (1, 0.2, 0.8), (2, 0.0, 0.2))
    free += [Line("SAG, image", 1, 2, end=0.8)] + [Line("SAG, image", s, 3, start, end) for s, start, end in windows]
    free += [Line("SAG, image, random mask", 1), Line("SAG, image, random mask", 1, 3, end=0.8)]
    free += [Line("SAG, image, everything blurred", scale) for scale in (0.5, 1)]
    free += [Line("SAG, image, everything blurred", 0.25, 3), Line("SAG, image, everything blurred", 0.5, 3, end=0.8)]
    free += [Line("unsharp mask", scale) for scale in (0.1, 0.25, 0.5)]
    free += [Line("unsharp mask", scale, blur) for blur in (2, 3) for scale in (0.1, 0.2)]
    free += [Line("unsharp mask", scale, end=0.8) for scale in (0.5, 1)] + [Line("unsharp mask", 0.2, 3, end=0.8)]
    free += [Line("SAG, noise", scale) for scale in (-0.5, 0.3, 1)]
    free += [Line("SAG, noise", scale, 3) for scale in (0.3, 1)]
    free += [Line(name, scale) for name in ("PAG", "SEG") for scale in (0.3, 1, 2, 4)] + [Line("SEG", 8)]
    free += [Line("unsharp mask, certain", scale, blur) for scale, blur in ((4, 1), (8, 1), (4, 2), (1, 3))]
    free += [Line("last prediction", 0.2)]
    free += [Line(f"SAG, image, {variant}", 1) for variant in ("soft mask", "up block")]
    free += [Line("SAG, image", 1, every=every) for every in (2, 3)]
    prompted = [Line(cfg=cfg, prompted=True) for cfg in (1.5, 2, 3)] + [replace(IMAGE, prompted=True)]
    prompted += [replace(IMAGE, scale=scale, cfg=1.5, prompted=True) for scale in (0.5, 1)]
    prompted += [Line("SAG, noise", 0.3, 3, cfg=1.5, prompted=True)]
    return plain + free + prompted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=192, help="pictures for each line")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the demo model")
    parser.add_argument("--weights", type=Path, default=checkpoint.WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where pictures are kept")
    parser.add_argument("--out", type=Path, default=FOLDER / "scan.json")
    args = parser.parse_args()
    studio = Studio(args.weights, args.cache, getattr(torch, args.dtype))
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
