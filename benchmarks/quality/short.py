"""The quality figure in short, for the tests: `python -m benchmarks.quality.short` records it in recorded.json."""

import json
import statistics
import tempfile
from pathlib import Path

import torch

from demo import checkpoint, scenes

from . import features, metrics
from .lines import COLOURS_OF, IMAGE, OBJECTS_OF, Line, Studio
from .measures import features_of

RECORDED = Path(__file__).parent / "recorded.json"
SAMPLES = 40
SEEDS = range(5)
LINES = {"unguided": Line(), "SAG, image": IMAGE, "SAG, noise": Line("SAG, noise", 0.75)}


def figures(seed: int) -> "dict[str, float]":
    """Frechet distances of 40 pictures of every line, drawn without a prompt from the same noise."""
    real = scenes.render(OBJECTS_OF.repeat(2), COLOURS_OF.repeat(2), 32, torch.Generator().manual_seed(0))
    network = features.load("faults")
    reference = features_of(network, real)
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(checkpoint.WEIGHTS, Path(folder), torch.float32)
        drawn = {name: studio.draw(line, 1000 + seed, SAMPLES)[0] for name, line in LINES.items()}
    return {name: metrics.frechet_distance(reference, features_of(network, images)) for name, images in drawn.items()}


def main() -> None:
    repeated = [figures(seed) for seed in SEEDS]
    spread = {name: statistics.stdev(values[name] for values in repeated) for name in repeated[0]}
    # What a seed changes is known from the others; what is tested is the first. All are drawn from the same noise, so
    # their differences are known better than themselves.
    between = {
        name: statistics.stdev(values[name] - values["unguided"] for values in repeated)
        for name in LINES
        if name != "unguided"
    }
    RECORDED.write_text(
        json.dumps({"first_seed": repeated[0], "spread": spread, "difference_spread": between}, indent=1) + "\n"
    )
    print(RECORDED.read_text())


if __name__ == "__main__":
    main()
