"""Sheets to look at: `python -m benchmarks.quality.sheets` draws one prompt (or none) from many seeds, line by line."""

import argparse
from pathlib import Path

import torch

from demo import checkpoint
from demo.engine import Engine
from demo.sheet import sheet

from .guidances import BLURRING, NAMES, guidance
from .lines import STEPS

COLUMNS = [("SAG, image", 1, 3), ("SAG, noise", 0.75, 1), ("unsharp mask", 0.2, 2), ("PAG", 1, 0), ("SEG", 4, 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompt", default="", help="default none")
    parser.add_argument("--seed", type=int, default=0, help="of the first row")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--guidance",
        nargs=3,
        action="append",
        metavar=("NAME", "SCALE", "BLUR"),
        help=f"a column; may be given again; NAME is one of {', '.join(NAMES)}",
    )
    parser.add_argument("--weights", type=Path, default=checkpoint.WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path("quality_sheet.png"))
    args = parser.parse_args()
    engine = Engine(checkpoint.load(args.weights), "cuda" if torch.cuda.is_available() else "cpu")
    noise, texts = engine.noise(args.seed, args.rows), [args.prompt] * args.rows
    options = {"steps": args.steps, "cfg": args.cfg}
    columns = {"unguided" if args.cfg == 1 else f"CFG {args.cfg:g}": engine.sample(noise, texts, **options)}
    for name, scale, blur in args.guidance or COLUMNS:
        with guidance(engine.unet, name, float(scale), float(blur)) as one:
            wide = f", blur {float(blur):g}" if name.startswith(BLURRING) else ""
            title = f"{name}\n{float(scale):g}{wide}"
            columns[title] = engine.sample(noise, texts, guidance=one, **options)
    prompt = f'"{args.prompt}"' if args.prompt else "no prompt"
    page = sheet(columns, f"{prompt}, seeds {args.seed} to {args.seed + args.rows - 1}, {args.steps} steps")
    page.save(args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
