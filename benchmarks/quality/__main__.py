"""Does guidance improve pictures? `python -m benchmarks.quality` draws, compares and plots.

Every line draws from the same noise, and is compared with real pictures by the measures that `judge` found to be
trustworthy. The pictures are kept, so the command goes on where it was stopped. Results go to results.json and
results.png in this folder.
"""

import argparse
import json
import platform
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Optional

import torch
from tqdm import tqdm

from demo import checkpoint
from demo.data import pictures
from demo.scenes import render

from . import features, plot
from .judge import HELD_OUT, REFERENCE
from .lines import COLOURS_OF, LINES, OBJECTS_OF, STEPS, TABLES, Studio
from .measures import Judge

FOLDER = Path(__file__).parent
FLOOR = "real pictures that it has not seen"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=1000, help="pictures for each line and repetition")
    parser.add_argument("--seeds", type=int, default=3, help="independent repetitions, for the spread")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the demo model")
    parser.add_argument("--networks", nargs="+", default=["faults"], help='whose features to compare; "faults" first')
    parser.add_argument("--compile", action="store_true", help="draw 1.4 times as fast on a CPU; needs a C++ compiler")
    parser.add_argument("--weights", type=Path, default=checkpoint.WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where pictures are kept")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for results.json and results.png")
    args = parser.parse_args()
    studio = Studio(args.weights, args.cache, getattr(torch, args.dtype), args.compile)
    jobs = [(seed, line) for seed in range(args.seeds) for line in LINES]
    drawn, strengths = {}, {}
    with tqdm(total=sum(line.evaluations for _, line in jobs) * args.samples, unit="evaluation") as bar:
        for seed, line in jobs:
            bar.set_description(line.title)
            images, strength = studio.draw(line, seed, args.samples)
            drawn.setdefault(line, []).append(images)
            strengths.setdefault(line, []).append(strength)
            bar.update(line.evaluations * args.samples)

    judge = Judge(pictures(REFERENCE, 32, args.cache / "pictures").images, args.networks)
    fresh = pictures(args.seeds * args.samples, 32, args.cache / "pictures", first_chunk=HELD_OUT).images
    pairs = torch.arange(args.samples) * 37 % len(COLOURS_OF)
    floors = {
        False: list(fresh.split(args.samples)),
        # Prompts go through all pairs in turn, which lowers every distance, so the floor has to have the same pairs.
        True: [
            render(OBJECTS_OF[pairs], COLOURS_OF[pairs], 32, torch.Generator().manual_seed(2_000_003 + seed))
            for seed in range(args.seeds)
        ],
    }
    classifier = features.load("faults")
    values = {line: [judge(images) for images in drawn[line]] for line in tqdm(LINES, desc="comparing")}
    tables = {}
    for name, (first, *others) in TABLES.items():
        floor = [judge(images) for images in floors[first.prompted]]
        rows = tables[name] = [{"title": FLOOR, **summary(floor)}]
        for line in (first, *others):
            for one, plain in zip(values[line], values[first]):  # from the same noise: known better than the value
                one["change of FD"] = one["FD, faults"] / plain["FD, faults"] - 1
            if line.prompted:
                for one, images in zip(values[line], drawn[line]):
                    one["as prompted"] = features.accuracy(classifier, images, COLOURS_OF[pairs], OBJECTS_OF[pairs])
            row = {"title": line.title, **asdict(line), "evaluations": line.evaluations}
            rows.append({**row, "strength": statistics.mean(strengths[line]), **summary(values[line])})
    result = {
        "weights_sha256": studio.digest,
        "trained_steps": checkpoint.load(args.weights).trained_steps,
        "samples": args.samples,
        "seeds": args.seeds,
        "steps": STEPS,
        "real_pictures": REFERENCE,
        "device": str(studio.engine.token_table.device),
        "dtype": args.dtype,
        "compiled": args.compile,
        "networks": args.networks,
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "tables": tables,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    plot.save(result, args.out / "results.png")
    print(table(result))


def summary(repeated: "list[dict[str, float]]") -> "dict[str, dict[str, float]]":
    """Mean and standard deviation (none of a single one) of every number over the repetitions."""
    return {
        name: {
            "mean": statistics.mean(values[name] for values in repeated),
            "sd": statistics.stdev(values[name] for values in repeated) if len(repeated) > 1 else None,
        }
        for name in repeated[0]
    }


def table(result: dict) -> str:
    """What is in the JSON as a table in Markdown, as docs/quality.md shows it."""
    columns = {
        "FD": ("FD, faults", "{:.2f}"),
        "change": ("change of FD", "{:+.1%}"),
        "precision": ("precision, faults", "{:.3f}"),
        "recall": ("recall, faults", "{:.3f}"),
        "coverage": ("coverage, faults", "{:.3f}"),
        "spectrum, dB": ("spectrum, dB", "{:.2f}"),
        **{f"FD, {name}": (f"FD, {name}", "{:.1f}") for name in result["networks"][1:]},
    }
    drawn = f"{result['seeds']} x {result['samples']} pictures, {result['steps']} steps of DDIM"
    lines = [f"{drawn}; drawn in {result['dtype']} on the {result['device']}"]
    for name, rows in result["tables"].items():
        shown = {**columns, "as prompted": ("as prompted", "{:.1%}")} if "as prompted" in rows[-1] else columns
        head = [name, "evaluations", "strength", *shown]
        lines += ["", "| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
        for row in rows:
            strength = f"{row['strength']:.1%}" if row.get("strength") else ""
            cells = [row["title"], str(row.get("evaluations", "")), strength]
            cells += [cell(row.get(number), form) for number, form in shown.values()]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(number: "Optional[dict[str, float]]", form: str) -> str:
    """A mean, and the standard deviation where there is one."""
    if number is None:
        return ""
    return form.format(number["mean"]) + ("" if number["sd"] is None else f" ± {form.format(number['sd']).lstrip('+')}")


if __name__ == "__main__":
    main()
