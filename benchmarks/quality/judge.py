"""Which measures can be trusted? `python -m benchmarks.quality.judge` tries them on real pictures with known faults.

Real pictures that nothing was trained on get faults of graded strength, and every measure compares them with the
pictures that it compares the model's with. A measure passes a fault that it has to notice if no grade is better than
the one before and the strongest is worse than none; and no fault may make it better. Differences within the noise of
the repetitions do not count. What was measured is kept in judge.json.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from demo.data import CHUNK, Pictures, pictures

from .faults import FAULTS, like_a_model, unsharp
from .measures import MEASURES, Judge, Measure

FOLDER = Path(__file__).parent
REFERENCE = 8 * CHUNK  # pictures that all are compared with, the first of those that the model was trained on
HELD_OUT = 1000  # the first chunk of pictures that nothing was trained on
REWARD = "sharpened faults"  # pictures with grain and joined halves, and unsharp masks over them
NOISE = 2.0  # standard deviations that a measure may move without meaning


def sets(data: Pictures, seed: int) -> "dict[tuple[str, float], Tensor]":
    """Pictures by fault and strength; strength 0 is without the fault."""
    generator = torch.Generator().manual_seed(seed)
    images, objects = data.images, data.objects
    faulty = {(name, 0.0): images for name in FAULTS}
    for name, fault in FAULTS.items():
        for strength in fault.strengths:
            faulty[name, strength] = fault.apply(images, objects, strength, generator)
    faulty[REWARD, 0.0] = like_a_model(images, objects, generator)
    for strength in FAULTS["unsharp mask"].strengths:
        faulty[REWARD, strength] = unsharp(faulty[REWARD, 0.0], objects, strength, generator)
    return faulty


def verdict(measure: Measure, fault: str, values: "list[list[float]]") -> str:
    """How a measure took a fault: "orders", "misses" (where it has to notice), "likes it", or "" (is not asked).

    Args:
        values: for every grade from 0 on, the measure of every repetition.
    """
    worse = [-measure.better * statistics.mean(repeated) for repeated in values]
    noise = NOISE * max(statistics.stdev(repeated) for repeated in values) / len(values[0]) ** 0.5
    if min(worse) < worse[0] - noise:
        return "likes it"
    if fault not in measure.sees and fault != REWARD:
        return ""
    rises = all(after > before - noise for before, after in zip(worse, worse[1:]))
    return "orders" if rises and worse[-1] > worse[0] + noise else "misses"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=1000, help="pictures of a set")
    parser.add_argument("--seeds", type=int, default=3, help="independent sets of each, at least 2")
    parser.add_argument("--networks", nargs="*", default=(), help="whose features to try; default all")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where pictures are kept")
    parser.add_argument("--out", type=Path, default=FOLDER / "judge.json")
    args = parser.parse_args()
    judge = Judge(pictures(REFERENCE, 32, args.cache / "pictures").images, args.networks)
    held_out = pictures(args.seeds * args.samples, 32, args.cache / "pictures", first_chunk=HELD_OUT)
    values = {}
    for seed in range(args.seeds):
        part = Pictures(*(column[seed * args.samples : (seed + 1) * args.samples] for column in held_out))
        clean = judge(part.images)
        for (fault, strength), images in tqdm(sets(part, seed).items(), desc=f"set {seed + 1} of {args.seeds}"):
            measured = clean if images is part.images else judge(images)
            for name, value in measured.items():
                values.setdefault(name, {}).setdefault(fault, {}).setdefault(strength, []).append(value)
    result = {"samples": args.samples, "seeds": args.seeds, "measures": {}}
    for name, faults in values.items():
        verdicts = {fault: verdict(MEASURES[name], fault, list(grades.values())) for fault, grades in faults.items()}
        result["measures"][name] = {
            "passes": not {"misses", "likes it"} & set(verdicts.values()),
            "verdicts": verdicts,
            "values": faults,
        }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def table(result: dict) -> str:
    """Means over the repetitions, from no fault to the strongest, and the verdicts."""
    lines = [f"{result['seeds']} x {result['samples']} real pictures with faults, weak to strong; the first is without"]
    for name, row in result["measures"].items():
        lines.append(f"\n{name}: {'passes' if row['passes'] else 'fails'}")
        for fault, grades in row["values"].items():
            means = [statistics.mean(repeated) for repeated in grades.values()]
            numbers = "".join(f"{mean:9.3f}" for mean in means)
            lines.append(f"  {fault:18}{numbers}   {row['verdicts'][fault]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
