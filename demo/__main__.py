"""Self-Attention Guidance in one command: `python -m demo` draws a sheet with and without it.

No ComfyUI, no GPU and no download: a small model lies in this folder.
"""

import argparse
import io
import math
import sys
from pathlib import Path
from typing import Callable, Optional

from . import prompts
from .presets import PRESETS, SHARPER

ROWS = 4  # seeds on a sheet


def number(kind: type, low: float, high: float) -> "Callable[[str], float]":
    """A number within a range, for argparse."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} from {low} to {high}, got {text!r}")
        return value

    return read


def known_words(text: str) -> str:
    """A prompt that the model understands, for argparse."""
    try:
        prompts.tokens(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def arguments(argv: "Optional[list[str]]" = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.split("\n")[0])
    words = f"one of {', '.join(prompts.COLOURS)}, and one of {', '.join(prompts.OBJECTS)}; either may be left out"
    parser.add_argument("--prompt", type=known_words, default="", help=words)
    parser.add_argument("--seed", type=number(int, 0, 2**63 - 1 - ROWS), default=0, help="of the first row")
    parser.add_argument("--scale", type=number(float, -2, 5), default=SHARPER["scale"], help="of the guidance")
    parser.add_argument(
        "--blur-sigma", type=number(float, 0, 10), default=SHARPER["blur_sigma"], help="of its blur, in pixels"
    )
    parser.add_argument(
        "--cfg", type=number(float, 1, 30), default=1.0, help="of classifier-free guidance; 1 is without"
    )
    parser.add_argument("--steps", type=number(int, 1, 1000), default=10)
    parser.add_argument("--out", type=Path, default=Path("sag_demo.png"), help="the picture to write (.png or .jpg)")
    parser.add_argument(
        "--comfyui",
        type=Path,
        metavar="PATH",
        help="start the ComfyUI in this folder and run there, with the interpreter COMFYUI_PYTHON or its own",
    )
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error(f"argument --out: must end in .png, .jpg or .jpeg, got {str(args.out)!r}")
    if not args.out.resolve().parent.is_dir():
        parser.error(f"argument --out: the folder {args.out.resolve().parent} does not exist")
    if args.comfyui and not (args.comfyui / "main.py").is_file():
        parser.error(f"argument --comfyui: must be the folder with ComfyUI's main.py, got {str(args.comfyui)!r}")
    return args


def draw(args: argparse.Namespace):
    """The sheet by diffusers: without guidance, with both differences, what changed and where it blurs."""
    print("loading PyTorch and the model (the first time takes a minute)", flush=True)
    import torch
    from tqdm import tqdm

    from . import checkpoint
    from .engine import Engine
    from .guidance import SelfAttentionGuidance
    from .sheet import change, lit_by, sheet

    engine = Engine(checkpoint.load(), "cuda" if torch.cuda.is_available() else "cpu")
    noise, texts = engine.noise(args.seed, ROWS), [args.prompt] * ROWS
    settings = {"the paper": PRESETS["the paper"]}
    settings["sharper"] = {**SHARPER, "scale": args.scale, "blur_sigma": args.blur_sigma}
    with tqdm(total=3 * args.steps, desc="drawing", unit="step") as bar:
        options = dict(steps=args.steps, cfg=args.cfg, on_step=lambda *_: bar.update())
        without = engine.sample(noise, texts, **options).cpu()
        guided, masks = {}, []
        for name, chosen in settings.items():
            masks.clear()  # those of the last are shown
            with SelfAttentionGuidance(engine.unet, **chosen, on_mask=masks.append) as guidance:
                guided[name] = engine.sample(noise, texts, guidance=guidance, **options).cpu()
    columns = {
        "without\nguidance": without,
        f"guided: sharper\n(image, {args.scale:g})": guided["sharper"],
        "what that changed\n(4 x; grey: nothing)": change(without, guided["sharper"], 4),
        f"the paper: softer\n(noise, {settings['the paper']['scale']:g})": guided["the paper"],
        "what that changed\n(4 x; grey: nothing)\n": change(without, guided["the paper"], 4),
    }
    if masks and args.scale and args.blur_sigma:  # else nothing is blurred
        columns["where it blurs\n(bright: often)"] = lit_by(without, [mask.cpu() for mask in masks])
    return sheet(columns, f"{described(args)}, seeds {args.seed} to {args.seed + ROWS - 1}")


def described(args: argparse.Namespace) -> str:
    """What is drawn, for the title."""
    cfg = f", CFG {args.cfg:g}" if args.cfg != 1 else ""
    prompt = f'"{args.prompt}"' if args.prompt else "no prompt"
    return f"{prompt}, {args.steps} steps of DDIM{cfg}"


def draw_in_comfyui(args: argparse.Namespace):
    """The pictures of the example workflow, without guidance and with it."""
    from PIL import Image

    from .comfyui import check_python, find_python
    from .server import pictures_with_and_without
    from .sheet import sheet

    python = find_python(args.comfyui)
    check_python(python)
    print(f"starting the ComfyUI in {args.comfyui} with {python} (a minute or two)", flush=True)
    names = ("prompt", "seed", "scale", "blur_sigma", "steps", "cfg")
    values = {name: getattr(args, name) for name in names}
    files = pictures_with_and_without(args.comfyui.resolve(), python.absolute(), **values)
    without, guided = ([Image.open(io.BytesIO(file)).convert("RGB") for file in column] for column in files)
    columns = {"without\nguidance": without, f"guided: sharper\n(image, {args.scale:g})": guided}
    return sheet(columns, f"in ComfyUI: {described(args)}, seed {args.seed}")


def main() -> None:
    if sys.version_info < (3, 9):  # noqa: UP036  started by hand, nothing else has looked
        sys.exit(f"error: Python 3.9 or newer is needed, this is {sys.version.split()[0]}")
    args = arguments()
    try:
        picture = draw_in_comfyui(args) if args.comfyui else draw(args)
        picture.save(args.out)
    except (RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; no picture was written")
    print(f"wrote {args.out.resolve()}")


if __name__ == "__main__":
    main()
