"""The quality of the demo's pictures: the figures of benchmarks/quality, in short, and their metrics on known cases."""

import json
import sys
from pathlib import Path

import pytest
import torch

for package in ("diffusers", "torchmetrics"):
    pytest.importorskip(package, reason='install what the tests need: pip install ".[test]"')

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # last, so that nothing of ComfyUI's is hidden

from benchmarks.quality import features, methods, metrics, short  # noqa: E402
from demo import scenes  # noqa: E402
from demo.prompts import COLOURS, OBJECTS  # noqa: E402


def test_quality_has_not_left_what_was_recorded():
    recorded = json.loads(short.RECORDED.read_text())
    now = short.figures(0)
    for name, value in now.items():
        assert abs(value - recorded["first_seed"][name]) <= recorded["spread"][name], (name, value, recorded)
    difference = recorded["first_seed"]["SAG"] - recorded["first_seed"]["unguided"]
    # Both are drawn from the same noise, so their difference is known better than either.
    assert now["SAG"] - now["unguided"] == pytest.approx(difference, abs=recorded["difference_spread"])


def test_frechet_distance_of_gaussians_apart_by_their_means_alone():
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert metrics.frechet_distance(points, points) == pytest.approx(0, abs=1e-4)
    assert metrics.frechet_distance(points, points + torch.tensor([3.0, 4.0, 0.0])) == pytest.approx(25, rel=1e-3)


def test_kernel_distance_is_about_0_for_the_same_distribution_and_grows_with_a_shift():
    one, two = torch.randn(2, 1000, 8, generator=torch.Generator().manual_seed(0))
    same, near, far = (metrics.kernel_distance(one, two + shift) for shift in (0.0, 0.5, 1.0))
    assert abs(same) < 0.02 < near < far


def test_the_classifier_names_pictures_it_has_not_seen():
    pairs = torch.arange(len(COLOURS) * len(OBJECTS))
    colours, objects = pairs % len(COLOURS), pairs // len(COLOURS)
    images = scenes.render(objects, colours, 32, torch.Generator().manual_seed(123))
    assert features.accuracy(features.load(), images, colours, objects) > 0.95
    assert features.accuracy(features.load(), images, (colours + 1) % len(COLOURS), objects) < 0.05


def test_every_method_is_compared_at_equal_steps_and_at_equal_evaluations():
    points = methods.points(20)
    assert {"unguided", "CFG", "SAG", "PAG", "CFG + SAG", "CFG + PAG"} < {point.method for point in points}
    assert len(set(points)) == len(points) == len({point.name for point in points})
    costs = {(point.method, point.steps): point.evaluations for point in points}
    assert costs[("unguided", 40)] == costs[("SAG", 20)] == costs[("PAG", 20)] == costs[("CFG", 20)] == 40
    assert costs[("CFG + SAG", 20)] == 60 and costs[("CFG + SAG", 13)] == 39
