"""The quality figure in short, for the tests: `python -m benchmarks.quality.short` records it in recorded.json."""

import json
import statistics
from pathlib import Path

import torch

from demo import checkpoint, scenes
from demo.engine import Engine
from demo.prompts import COLOURS, OBJECTS

from . import features, metrics
from .methods import Point, draw

RECORDED = Path(__file__).parent / "recorded.json"
SAMPLES, STEPS, SCALE = 40, 10, 0.5
SEEDS = range(5)


def figures(seed: int) -> "dict[str, float]":
    """Frechet distances of 40 pictures without guidance and with it, drawn without a prompt from the same noise."""
    engine = Engine(checkpoint.load())
    network = features.load()
    pairs = torch.arange(2 * len(COLOURS) * len(OBJECTS)) % (len(COLOURS) * len(OBJECTS))
    generator = torch.Generator().manual_seed(0)
    real = scenes.render(pairs // len(COLOURS), pairs % len(COLOURS), engine.architecture.size, generator)

    def distance(point: Point) -> float:
        with torch.no_grad():
            drawn = network(draw(engine, point, 5_000_000 + 1000 * seed, SAMPLES))
            return metrics.frechet_distance(network(real), drawn)

    return {
        "unguided": distance(Point(False, STEPS)),
        "SAG": distance(Point(False, STEPS, guidance="SAG", scale=SCALE)),
    }


def main() -> None:
    repeated = [figures(seed) for seed in SEEDS]
    # What a seed changes is known from the others; what is tested is the first.
    between = statistics.stdev(values["SAG"] - values["unguided"] for values in repeated)
    spread = {name: statistics.stdev(values[name] for values in repeated) for name in repeated[0]}
    RECORDED.write_text(
        json.dumps({"first_seed": repeated[0], "spread": spread, "difference_spread": between}, indent=1) + "\n"
    )
    print(RECORDED.read_text())


if __name__ == "__main__":
    main()
