"""Does guidance improve pictures? `python -m benchmarks.quality` draws, compares and plots.

Every method draws from the same noise and for the same prompts. The pictures are kept, so the command goes on where
it was stopped. Results go to results.json and results.png in this folder.
"""

import argparse
import hashlib
import json
import platform
import statistics
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from demo import checkpoint
from demo.data import CHUNK, pictures
from demo.engine import Engine
from demo.prompts import COLOURS, OBJECTS
from demo.scenes import render

from . import features, metrics, plot
from .methods import Point, draw, points, prompts_for

FOLDER = Path(__file__).parent
REFERENCE = 8 * CHUNK  # pictures that all are compared with, the first of those that the model was trained on
HELD_OUT = 1000  # the first chunk of pictures that nothing was trained on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=64, help="pictures for each point and seed")
    parser.add_argument("--seeds", type=int, default=2, help="independent repetitions, for the spread")
    parser.add_argument("--steps", type=int, default=10, help="of DDIM")
    parser.add_argument("--weights", type=Path, default=checkpoint.WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where pictures are kept")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for results.json and results.png")
    args = parser.parse_args()

    engine = Engine(checkpoint.load(args.weights), "cuda" if torch.cuda.is_available() else "cpu")
    digest = hashlib.sha256(args.weights.read_bytes()).hexdigest()
    kept = args.cache / "quality" / digest[:12]
    kept.mkdir(parents=True, exist_ok=True)
    wanted = points(args.steps)
    drawn = {point: [] for point in wanted}
    jobs = [(seed, point) for seed in range(args.seeds) for point in wanted]
    with tqdm(total=sum(point.evaluations for _, point in jobs) * args.samples, unit="evaluation") as bar:
        for seed, point in jobs:
            file = kept / f"{point.name}_{seed}_{args.samples}.npy"
            if not file.exists():
                bar.set_description(point.name)
                images = draw(engine, point, 1_000_000 * (seed + 1), args.samples)
                np.save(file.with_suffix(".part.npy"), images.numpy())
                file.with_suffix(".part.npy").replace(file)  # whole or not at all
            drawn[point].append(torch.from_numpy(np.load(file)))
            bar.update(point.evaluations * args.samples)

    size = engine.architecture.size
    real = pictures(REFERENCE, size, args.cache / "pictures").images
    fresh = pictures(args.seeds * args.samples, size, args.cache / "pictures", first_chunk=HELD_OUT)
    # Prompts go through all pairs in turn, which lowers every distance, so the floor has to have the same pairs.
    colours, objects = pairs_of(prompts_for(Point(True, args.steps), args.samples))
    floors = {
        "no prompt": list(fresh.images.split(args.samples)),
        "prompt": [
            render(objects, colours, size, torch.Generator().manual_seed(2_000_003 + seed))
            for seed in range(args.seeds)
        ],
    }
    networks = features.extractors()
    reference = {name: features_of(network, real) for name, network in networks.items()}

    def measured(sets: "list[Tensor]") -> "dict[str, list[dict[str, float]]]":
        return {
            name: [distances(reference[name], features_of(network, images)) for images in sets]
            for name, network in networks.items()
        }

    values = {point: measured(drawn[point]) for point in tqdm(wanted, desc="comparing")}
    rows = []
    for point in wanted:
        row = {"method": point.method, **asdict(point), "evaluations": point.evaluations}
        plain = values[Point(point.prompted, args.steps)]
        for name, repeated in values[point].items():
            # From the same noise, so the change is known better than the distances.
            changes = [{"fd_change": one["fd"] - other["fd"]} for one, other in zip(repeated, plain[name])]
            row[name] = {**spread(repeated), **spread(changes)}
        if point.prompted:
            row["as_prompted"] = as_prompted(networks["classifier"], point, drawn[point])
        rows.append(row)
    result = {
        "weights_sha256": digest,
        "trained_steps": checkpoint.load(args.weights).trained_steps,
        "samples": args.samples,
        "seeds": args.seeds,
        "real_pictures": len(real),
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "real_against_real": {
            ground: {name: spread(repeated) for name, repeated in measured(sets).items()}
            for ground, sets in floors.items()
        },
        "points": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    plot.save(result, args.out / "results.png")
    print(table(result))


def features_of(network, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(64)])


def distances(real: Tensor, drawn: Tensor) -> "dict[str, float]":
    return {
        "fd": metrics.frechet_distance(real, drawn),
        "kid": metrics.kernel_distance(real, drawn),
        **metrics.neighbourhoods(real, drawn),
    }


def spread(repeated: "list[dict[str, float]]") -> "dict[str, dict[str, float]]":
    """Mean and standard deviation of every number over the repetitions."""
    return {
        name: {
            "mean": statistics.mean(values[name] for values in repeated),
            "sd": statistics.stdev(values[name] for values in repeated) if len(repeated) > 1 else None,
        }
        for name in repeated[0]
    }


def as_prompted(classifier, point: Point, sets: "list[Tensor]") -> "dict[str, float]":
    colours, objects = pairs_of(prompts_for(point, len(sets[0])))
    return spread([{"share": features.accuracy(classifier, images, colours, objects)} for images in sets])["share"]


def pairs_of(texts: "list[str]") -> "tuple[Tensor, Tensor]":
    """The colours and the objects that prompts name, as their indices."""
    pairs = [text.split() for text in texts]
    colours = torch.tensor([COLOURS.index(colour) for colour, _ in pairs])
    return colours, torch.tensor([OBJECTS.index(thing) for _, thing in pairs])


def plus_minus(number: "dict[str, float]", digits: int) -> str:
    return f"{number['mean']:.{digits}f} +- {number['sd'] or 0:.{digits}f}"


def table(result: dict) -> str:
    """What is in the JSON, to read."""
    heads = f"{'evals':>6}{'FD':>16}{'change of FD':>16}{'KID':>18}{'as prompted':>12}"
    lines = [
        f"{'in the features of the classifier':48}{heads}{'; of ImageNet: FD':>18}{'precision':>10}{'coverage':>9}"
    ]

    def line(name: str, evaluations: object, row: dict) -> str:
        numbers, public = row["classifier"], row.get("imagenet")
        fd, kid = plus_minus(numbers["fd"], 2), plus_minus(numbers["kid"], 3)
        change = plus_minus(numbers["fd_change"], 2) if "fd_change" in numbers else ""
        prompted = f"{row['as_prompted']['mean']:.2f}" if "as_prompted" in row else ""
        line = f"{name:48}{evaluations!s:>6}{fd:>16}{change:>16}{kid:>18}{prompted:>12}"
        if public:
            line += f"{public['fd']['mean']:18.0f}{public['precision']['mean']:10.2f}{public['coverage']['mean']:9.2f}"
        return line

    for ground, floor in result["real_against_real"].items():
        lines.append(line(f"{ground}: real against real", "", floor))
    for row in result["points"]:
        ground = "prompt" if row["prompted"] else "no prompt"
        cfg = f" {row['cfg']:g}" if row["cfg"] != 1 else ""
        scale = f" {row['scale']:g}" if row["guidance"] else ""
        name = row["method"].replace("CFG", f"CFG{cfg}") + scale
        lines.append(line(f"{ground}: {name}, {row['steps']} steps", row["evaluations"], row))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
