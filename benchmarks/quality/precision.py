"""Does drawing in bfloat16 move the measures? `python -m benchmarks.quality.precision` draws the same in float32."""

import argparse
from pathlib import Path

import torch

from demo import checkpoint
from demo.data import pictures

from .judge import REFERENCE
from .lines import IMAGE, Line, Studio
from .measures import Judge

LINES = (Line(), IMAGE)
SEED = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=256, help="pictures for each line")
    parser.add_argument("--weights", type=Path, default=checkpoint.WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where pictures are kept")
    args = parser.parse_args()
    judge = Judge(pictures(REFERENCE, 32, args.cache / "pictures").images, ["faults"])
    print(f"{'':46}{'':9}  FD      precision  recall  coverage  spectrum, dB  difference of a pixel, of 255")
    for line in LINES:
        first = None
        for dtype in (torch.float32, torch.bfloat16):
            images, _ = Studio(args.weights, args.cache, dtype).draw(line, SEED, args.samples)
            first = images if first is None else first
            off = (images.float() - first.float()).abs().mean().item()
            v = judge(images)
            shares = [v[f"{name}, faults"] for name in ("precision", "recall", "coverage")]
            numbers = f"{v['FD, faults']:7.3f}  {shares[0]:9.3f}  {shares[1]:6.3f}  {shares[2]:8.3f}"
            print(f"{line.title:46} {str(dtype)[6:]:9}{numbers}  {v['spectrum, dB']:12.3f}  {off:.2f}")


if __name__ == "__main__":
    main()
