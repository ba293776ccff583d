"""Drawing the demo's pictures and training on them: the same every time, also after a stop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason='the demo needs its packages: pip install ".[demo]"')

from demo import checkpoint, scenes  # noqa: E402
from demo.prompts import COLOURS, OBJECTS  # noqa: E402
from demo.train import weights_of  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def train(folder: Path, pictures: Path, steps: int, *more: str) -> checkpoint.Checkpoint:
    out = folder / "out.safetensors"
    small = ["--count", "8", "--batch", "2", "--every", "2", "--device", "cpu", "--steps", str(steps)]
    places = ["--folder", str(folder), "--pictures", str(pictures), "--out", str(out)]
    command = [sys.executable, "-m", "demo.train", *small, *places, *more]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=one_thread, check=True, capture_output=True)
    return checkpoint.load(out)


def test_training_stopped_and_continued_gives_the_weights_of_one_run(tmp_path):
    at_once = train(tmp_path / "one", tmp_path / "pictures", 4)
    train(tmp_path / "two", tmp_path / "pictures", 2)
    continued = train(tmp_path / "two", tmp_path / "pictures", 4)

    assert continued.trained_steps == at_once.trained_steps == 4
    assert all(torch.equal(tensor, continued.unet[name]) for name, tensor in at_once.unet.items())
    assert torch.equal(at_once.token_table, continued.token_table)
    losses = [json.loads(line) for line in (tmp_path / "two" / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in losses] == [2, 4]
    assert len(list((tmp_path / "two").glob("samples_*.png"))) == 2


def test_training_goes_on_from_given_weights_and_counts_their_steps(tmp_path):
    first = train(tmp_path / "one", tmp_path / "pictures", 2)
    given = tmp_path / "one" / "out.safetensors"
    second = train(tmp_path / "two", tmp_path / "pictures", 2, "--from", str(given), "--rate", "1e-9")
    assert second.trained_steps == 4
    for name, tensor in first.unet.items():  # at no rate they stay what they were, to half precision
        torch.testing.assert_close(second.unet[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_noise_level_counts_by_the_root_of_noise_over_signal():
    signal = torch.tensor([0.5, 0.8, 0.2, 0.01])
    torch.testing.assert_close(weights_of(signal), torch.tensor([1.0, 0.5, 2.0, 99**0.5]))


def draw(objects: "list[str]", colours: "list[str]", seed: int = 0) -> torch.Tensor:
    things = torch.tensor([OBJECTS.index(name) for name in objects])
    tints = torch.tensor([COLOURS.index(name) for name in colours])
    return scenes.render(things, tints, 24, torch.Generator().manual_seed(seed))


def test_every_object_is_drawn_and_no_two_alike():
    pictures = draw(list(OBJECTS), ["red"] * len(OBJECTS))
    assert pictures.shape == (10, 3, 24, 24) and pictures.dtype == torch.uint8
    for i in range(len(pictures)):
        for j in range(i):
            assert (pictures[i].float() - pictures[j].float()).abs().mean() > 2, (OBJECTS[i], OBJECTS[j])


@pytest.mark.parametrize("colour, strongest", [("red", 0), ("green", 1), ("blue", 2)])
def test_a_cube_has_the_colour_of_its_name(colour, strongest):
    cube = draw(["cube"] * 4, [colour] * 4)[:, :, 10:16, 10:14].float().mean((0, 2, 3))
    assert cube.argmax() == strongest
    assert cube.max() > 2 * cube.min()


def test_pictures_depend_on_the_seed_alone():
    assert torch.equal(draw(["duck"], ["yellow"], 1), draw(["duck"], ["yellow"], 1))
    assert not torch.equal(draw(["duck"], ["yellow"], 1), draw(["duck"], ["yellow"], 2))
