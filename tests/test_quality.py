"""The quality of the demo's pictures: the figures of benchmarks/quality in short, and its parts on known cases."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

for package in ("diffusers", "torchmetrics"):
    pytest.importorskip(package, reason='install what the tests need: pip install ".[test]"')

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # last, so that nothing of ComfyUI's is hidden

from benchmarks.quality import faults, features, guidances, judge, metrics, scan, short  # noqa: E402
from benchmarks.quality.lines import COLOURS_OF, IMAGE, LINES, OBJECTS_OF, Line, Studio  # noqa: E402
from demo import checkpoint, scenes  # noqa: E402
from demo.engine import Engine, Step  # noqa: E402
from sag_core import gaussian_blur  # noqa: E402


@pytest.fixture(scope="module")
def real():
    """One picture of every colour and object."""
    return scenes.render(OBJECTS_OF, COLOURS_OF, 32, torch.Generator().manual_seed(123))


def test_quality_has_not_left_what_was_recorded():
    recorded = json.loads(short.RECORDED.read_text())
    now = short.figures(0)
    for name, value in now.items():
        assert abs(value - recorded["first_seed"][name]) <= recorded["spread"][name], (name, value, recorded)
    for name, spread in recorded["difference_spread"].items():
        difference = recorded["first_seed"][name] - recorded["first_seed"]["unguided"]
        assert now[name] - now["unguided"] == pytest.approx(difference, abs=spread)


def test_frechet_distance_of_gaussians_apart_by_their_means_alone():
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert metrics.frechet_distance(points, points) == pytest.approx(0, abs=1e-4)
    assert metrics.frechet_distance(points, points + torch.tensor([3.0, 4.0, 0.0])) == pytest.approx(25, rel=1e-3)


def test_kernel_distance_is_about_0_for_the_same_distribution_and_grows_with_a_shift():
    one, two = torch.randn(2, 1000, 8, generator=torch.Generator().manual_seed(0))
    same, near, far = (metrics.kernel_distance(one, two + shift) for shift in (0.0, 0.5, 1.0))
    assert abs(same) < 0.02 < near < far


def test_the_spectrum_of_a_wave_is_in_its_ring_and_half_the_contrast_is_6_decibels():
    wave = 100 * torch.sin(2 * torch.pi * 5 * torch.arange(32) / 32).expand(2, 3, 32, 32)
    assert metrics.spectrum(wave).argmax() == 4  # rings are counted from 1
    assert metrics.spectrum_distance(wave, wave) == 0
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert metrics.spectrum_distance(noise, noise / 2) == pytest.approx(20 * math.log10(2), rel=1e-6)


def test_the_classifier_names_pictures_it_has_not_seen(real):
    classifier = features.load("faults")
    assert features.accuracy(classifier, real, COLOURS_OF, OBJECTS_OF) > 0.95
    assert features.accuracy(classifier, real, (COLOURS_OF + 1) % 8, OBJECTS_OF) < 0.05


@pytest.mark.parametrize("name", faults.FAULTS)
def test_a_fault_grows_with_its_strength_and_is_nothing_at_0(name, real):
    fault = faults.FAULTS[name]

    def off(strength):
        spoiled = fault.apply(real, OBJECTS_OF, strength, torch.Generator().manual_seed(0))
        assert spoiled.shape == real.shape and spoiled.dtype == torch.uint8
        return (spoiled.float() - real.float()).abs().mean()

    grades = [off(strength) for strength in fault.strengths]
    assert off(0.0) == 0 and grades[0] > 0
    if name != "missing objects":  # which shows other pictures, not changed ones
        assert grades == sorted(grades)


def test_joined_pictures_have_two_objects(real):
    joined = faults.joined(real, OBJECTS_OF, 1.0, torch.Generator().manual_seed(0))
    changed = (joined != real).flatten(1).any(1)
    assert changed.float().mean() > 0.8  # not where the partner has the same object
    assert torch.equal(joined[..., :16], real[..., :16])


@pytest.mark.parametrize(
    "values, expected",
    [
        ([[1.0, 1.1], [2.0, 2.1], [3.0, 3.1]], "orders"),
        ([[1.0, 1.1], [1.0, 1.12], [3.0, 3.1]], "orders"),  # a first grade within the noise
        ([[1.0, 1.1], [3.0, 3.1], [2.0, 2.1]], "misses"),
        ([[1.0, 1.1], [1.0, 1.1], [1.0, 1.1]], "misses"),
        ([[1.0, 1.1], [0.5, 0.6], [3.0, 3.1]], "likes it"),
    ],
)
def test_the_verdict_on_a_measure_that_is_better_when_lower(values, expected):
    measure = judge.Measure(-1, ("grain",))
    assert judge.verdict(measure, "grain", values) == expected
    higher = [[-value for value in repeated] for repeated in values]
    assert judge.verdict(judge.Measure(1, ("grain",)), "grain", higher) == expected
    if expected != "likes it":
        assert judge.verdict(measure, "blur", values) == ""  # it is not asked


def test_the_measures_that_are_published_passed():
    judged = json.loads((ROOT / "benchmarks" / "quality" / "judge.json").read_text())["measures"]
    for name in ("FD, faults", "spectrum, dB", "recall, faults"):
        assert judged[name]["passes"], name


def test_every_line_has_its_cost_and_a_name_of_its_own():
    for some in (LINES, scan.lines()):
        assert len(set(some)) == len(some)
        assert len({(line.prompted, line.title) for line in some}) == len(some)
    assert Line().evaluations == Line("unsharp mask", 0.1).evaluations == 10
    assert Line(steps=20).evaluations == Line("SAG, image", 1).evaluations == Line(cfg=2).evaluations == 20
    assert Line("PAG", 1, cfg=2).evaluations == 30
    assert Line("SAG, image", 1, end=0.5).evaluations == 15
    assert Line("SAG, image", 1, every=3).evaluations == 14


def test_what_is_called_equally_strong_changed_the_prediction_by_as_much():
    tables = json.loads((ROOT / "benchmarks" / "quality" / "results.json").read_text())["tables"]
    rows = [row for row in tables["Without a prompt, equally strong"] if row.get("guidance")]
    (image,) = (row for row in rows if row["title"] == IMAGE.title)
    assert len(rows) > 5
    for row in rows:
        assert row["strength"] == pytest.approx(image["strength"], abs=0.003), row["title"]


@pytest.fixture(scope="module")
def engine():
    return Engine(checkpoint.load())


@pytest.mark.parametrize("name", guidances.NAMES)
def test_scale_0_changes_nothing_and_the_network_is_left_as_it_was(name, engine):
    noise, options = engine.noise(0, 2), {"steps": 2}
    plain = engine.sample(noise, [""] * 2, **options)
    for scale in (0.5, 0.0):
        with guidances.guidance(engine.unet, name, scale, 1.0) as guidance:
            guided = engine.sample(noise, [""] * 2, guidance=guidance, **options)
        assert torch.equal(guided, plain) == (scale == 0)
    assert torch.equal(engine.sample(noise, [""] * 2, **options), plain)


def step(x0, **changes):
    values = dict(x=x0, alpha=0.8, sigma=0.6, denoised=x0, x0=x0, denoise=None, branch=slice(0, 1), progress=0.0)
    return Step(**{**values, **changes})


def test_an_unsharp_mask_adds_what_the_blur_removes():
    x0 = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    removed = x0 - gaussian_blur(x0, 1.0)
    torch.testing.assert_close(guidances.UnsharpMask(0.5, 1.0)(step(x0)), x0 + 0.5 * removed)


def test_every_kth_step_reuses_and_a_window_is_half_open():
    calls = []

    def one(step):
        calls.append(step.progress)
        return step.denoised + len(calls)

    x0, every = torch.zeros(1, 3, 4, 4), guidances.Every(one, 2)
    assert [every(step(x0, progress=p / 4)).mean().item() for p in range(4)] == [1, 1, 2, 2]
    assert calls == [0, 0.5]
    within = guidances.Within(lambda step: step.denoised + 1, 0.25, 0.75)
    assert [within(step(x0, progress=p / 4)).mean().item() for p in range(4)] == [0, 1, 1, 0]


def test_bands_scale_what_a_blur_of_1_pixel_leaves_of_the_term_and_the_rest():
    x0, term = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)

    def one(step):
        return step.denoised + term

    slow = gaussian_blur(term, 1.0)
    torch.testing.assert_close(guidances.Bands(one, 1, 1)(step(x0)), x0 + term)
    torch.testing.assert_close(guidances.Bands(one, 2, 0.5)(step(x0)), x0 + 2 * slow + 0.5 * (term - slow))


def test_detail_beside_a_guidance_is_an_unsharp_mask_of_the_prediction():
    x0 = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sharpened = guidances.Sharpened(lambda step: step.denoised + 1, 0.5)
    torch.testing.assert_close(sharpened(step(x0)), x0 + 1 + 0.5 * (x0 - gaussian_blur(x0, 1.0)))


def test_the_same_batch_takes_away_what_was_blurred_a_step_before(engine):
    first, second = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    seen = []

    def denoise(x):
        seen.append(x)
        return x / 2

    with guidances.guidance(engine.unet, guidances.SAME_BATCH, 2.0, 1.5) as guidance:
        guided = []
        for x0 in (first, second):
            engine.unet(x0, 500, engine.embed([""]))  # so that there is attention
            guided.append(guidance(step(x0, denoise=denoise)))
    removed = first - seen[0]  # in the first step its own
    assert removed.abs().amax() > 0.01
    torch.testing.assert_close(seen[1], second - removed)
    torch.testing.assert_close(guided[1], second + 2 * (second - seen[1] / 2))


def test_strength_is_the_change_over_the_prediction():
    x0 = torch.ones(2, 3, 4, 4)
    strength = guidances.Strength(lambda step: step.denoised * 1.25)
    strength(step(x0))
    strength(step(2 * x0))
    assert strength.mean == pytest.approx(0.25)


def test_a_studio_draws_a_line_once_and_the_same_noise_in_every_line(tmp_path):
    studio = Studio(checkpoint.WEIGHTS, tmp_path, torch.float32)
    images, strength = studio.draw(Line(steps=1), 0, 3)
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.uint8 and strength == 0
    before = studio.engine.evaluations
    assert torch.equal(studio.draw(Line(steps=1), 0, 3)[0], images)
    assert studio.engine.evaluations == before
    assert torch.equal(studio.draw(Line("SAG, image", 0.0, steps=1), 0, 3)[0], images)
    assert not torch.equal(studio.draw(Line(steps=1), 1, 3)[0], images)
