"""What guidance does on your own checkpoint: `python -m demo.compare --checkpoint NAME`, with your ComfyUI running.

Draws every prompt from every seed without guidance and with each preset, through ComfyUI's HTTP interface, and writes
one sheet and a table of sharpness, saturation and strength. Nothing is left in ComfyUI's output folder.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import Image, ImageDraw

from .client import Client
from .presets import ADVANCED, PRESETS

WITHOUT = "without"
PROMPTS = (
    "photo of an old fisherman mending a net, harbour in the background",
    "a bowl of cherries on a wooden table, window light",
    "a city street at night after rain, neon signs",
    "watercolour of a fox in a snowy forest",
)
CELL, GAP, TITLE = 384, 8, 36


def workflow(client: Client, args: argparse.Namespace, prompt: str, seed: int) -> dict:
    """One prompt from one seed, without guidance and with every preset, in ComfyUI's API format.

    The node that shows a picture has the id of its column.
    """
    width, height = args.size
    graph = {
        "model": ("CheckpointLoaderSimple", {"ckpt_name": args.checkpoint}),
        "positive": ("CLIPTextEncode", {"text": prompt, "clip": ["model", 1]}),
        "negative": ("CLIPTextEncode", {"text": args.negative, "clip": ["model", 1]}),
        "latent": ("EmptyLatentImage", {"width": width, "height": height, "batch_size": 1}),
    }
    defaults = client.defaults(ADVANCED)
    for name in (WITHOUT, *PRESETS):
        model = ["model", 0]
        if name != WITHOUT:
            graph[f"{name} model"] = (ADVANCED, {**defaults, **PRESETS[name], "model": model})
            model = [f"{name} model", 0]
        sampling = {"seed": seed, "steps": args.steps, "cfg": args.cfg, "denoise": 1.0}
        sampling.update(sampler_name=args.sampler, scheduler=args.scheduler, model=model)
        sampling.update(positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0])
        graph[f"{name} latent"] = ("KSampler", sampling)
        graph[f"{name} picture"] = ("VAEDecode", {"samples": [f"{name} latent", 0], "vae": ["model", 2]})
        graph[name] = ("PreviewImage", {"images": [f"{name} picture", 0]})
    return {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in graph.items()}


def rows(client: Client, args: argparse.Namespace) -> "Iterator[tuple[str, dict[str, Image.Image]]]":
    """For every prompt and seed, a title and the picture of every column."""
    for prompt in args.prompt or PROMPTS:
        for seed in range(args.seed, args.seed + args.seeds):
            files = client.pictures(workflow(client, args, prompt, seed), args.seconds)
            pictures = {name: Image.open(io.BytesIO(files[name][0])).convert("RGB") for name in (WITHOUT, *PRESETS)}
            yield f"{prompt}, seed {seed}", pictures


def sharpness(picture: Image.Image) -> float:
    """Mean step of brightness from a pixel to the next, in levels of 255."""
    bright = np.asarray(picture.convert("L"), dtype=np.float32)
    return float(np.abs(np.diff(bright, axis=0)).mean() + np.abs(np.diff(bright, axis=1)).mean()) / 2


def saturation(picture: Image.Image) -> float:
    """Mean saturation, 0..1."""
    return float(np.asarray(picture.convert("HSV"), dtype=np.float32)[..., 1].mean()) / 255


def strength(picture: Image.Image, without: Image.Image) -> float:
    """How far a picture is from the one without guidance: root mean square, in levels of 255."""
    change = np.asarray(picture, dtype=np.float32) - np.asarray(without, dtype=np.float32)
    return float(np.sqrt(np.square(change).mean()))


def table(drawn: "list[dict[str, Image.Image]]") -> str:
    """Means over all rows, in Markdown."""
    lines = ["| | sharpness | saturation | strength |", "| --- | --- | --- | --- |"]
    for name in (WITHOUT, *PRESETS):
        means = [
            np.mean([measure(pictures) for pictures in drawn])
            for measure in (
                lambda pictures: sharpness(pictures[name]),  # noqa: B023
                lambda pictures: saturation(pictures[name]),  # noqa: B023
                lambda pictures: strength(pictures[name], pictures[WITHOUT]),  # noqa: B023
            )
        ]
        lines.append(f"| {name} | {means[0]:.2f} | {means[1]:.3f} | {means[2]:.1f} |")
    return "\n".join(lines)


def page(titles: "list[str]", drawn: "list[dict[str, Image.Image]]") -> Image.Image:
    """All pictures, a row for every prompt and seed, a column for every preset."""
    from .sheet import font

    columns = (WITHOUT, *PRESETS)
    height = round(CELL * drawn[0][WITHOUT].height / drawn[0][WITHOUT].width)
    step = height + TITLE + GAP
    sheet = Image.new("RGB", (GAP + (CELL + GAP) * len(columns), TITLE + step * len(drawn)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        left = GAP + (CELL + GAP) * column
        pen.text((left + CELL / 2, TITLE / 2), name, "black", font(20), anchor="mm")
        for row, (title, pictures) in enumerate(zip(titles, drawn)):
            top = TITLE + step * row
            if column == 0:
                pen.text((left, top + TITLE / 2), title, "black", font(16), anchor="lm")
            sheet.paste(pictures[name].resize((CELL, height), Image.Resampling.LANCZOS), (left, top + TITLE))
    return sheet


def size(text: str) -> "tuple[int, int]":
    """WIDTHxHEIGHT, for argparse."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, such as 512x512, got {text!r}")
    return int(width), int(height)


def arguments(argv: "Optional[list[str]]" = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.compare", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="as ComfyUI lists it in Load Checkpoint")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of the running ComfyUI")
    parser.add_argument("--prompt", action="append", help=f"may be given again; default {len(PROMPTS)} prompts")
    parser.add_argument("--negative", default="", help="the negative prompt of all")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--seeds", type=int, default=2, help="how many of each prompt")
    parser.add_argument("--size", type=size, default=(512, 512), metavar="WIDTHxHEIGHT", help="1024x1024 for SDXL")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--seconds", type=float, default=1800, help="at most, for a prompt and seed")
    parser.add_argument("--out", type=Path, default=Path("sag_compare.png"), help="the sheet; the table goes beside it")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f"argument --seeds: must be at least 1, got {args.seeds}")
    if not args.out.resolve().parent.is_dir():
        parser.error(f"argument --out: the folder {args.out.resolve().parent} does not exist")
    return args


def run(args: argparse.Namespace) -> None:
    client = Client(args.server)
    known = client.inputs("CheckpointLoaderSimple")["ckpt_name"]
    names = known[0] if isinstance(known[0], list) else known[1].get("options", [])
    if args.checkpoint not in names:
        raise RuntimeError(
            f"--checkpoint must be one of {', '.join(names) or '(there is none)'}, got {args.checkpoint!r}"
        )
    titles, drawn = [], []
    for title, pictures in rows(client, args):
        print(f"drawn: {title}", flush=True)
        titles.append(title)
        drawn.append(pictures)
    page(titles, drawn).save(args.out)
    report = table(drawn)
    args.out.with_suffix(".md").write_text(f"{args.checkpoint}, {args.steps} steps, CFG {args.cfg:g}\n\n{report}\n")
    print(f"{report}\nwrote {args.out.resolve()} and {args.out.with_suffix('.md').name} beside it")


def main() -> None:
    args = arguments()
    try:
        run(args)
    except OSError as error:
        sys.exit(f"error: {args.server} does not answer ({error}): start ComfyUI, or give its address with --server")
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")


if __name__ == "__main__":
    main()
