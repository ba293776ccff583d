"""The demo model's file: what is written is read, and every damage is an error that says what to do."""

import hashlib
import json
from dataclasses import asdict

import pytest
import torch

pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file

from demo.checkpoint import WEIGHTS, Architecture, Checkpoint, load, save
from demo.prompts import TABLE_ROWS

ARCHITECTURE = Architecture(size=8, channels=(32, 96), heads=2, token_width=6, beta_start=0.1, beta_end=0.2)


@pytest.fixture
def path(tmp_path):
    """A small sound file: in a folder that does not exist before."""
    noise = torch.Generator().manual_seed(0)
    unet = {"conv_in.weight": torch.randn(4, 3, 3, 3, generator=noise), "conv_in.bias": torch.arange(4.0)}
    table = torch.randn(TABLE_ROWS, ARCHITECTURE.token_width, generator=noise)
    save(Checkpoint(ARCHITECTURE, unet, table, 1234), tmp_path / "new" / "weights.safetensors")
    return tmp_path / "new" / "weights.safetensors"


def metadata(**changes):
    stored = {"architecture": json.dumps(asdict(ARCHITECTURE)), "trained_steps": "1234", **changes}
    return {name: value for name, value in stored.items() if value is not None}


def rewrite(path, tensors=None, **changes):
    """Write the file again with other tensors or metadata; None takes something away."""
    written = {**load_file(path), **(tensors or {})}
    save_file({name: tensor for name, tensor in written.items() if tensor is not None}, path, metadata(**changes))


def test_a_round_trip_keeps_everything_in_half_precision(path):
    read = load(path)
    assert (read.architecture, read.trained_steps) == (ARCHITECTURE, 1234)
    noise = torch.Generator().manual_seed(0)
    written = torch.randn(4, 3, 3, 3, generator=noise)
    assert list(read.unet) == ["conv_in.bias", "conv_in.weight"]
    assert torch.equal(read.unet["conv_in.weight"], written.half().float())
    assert torch.equal(read.unet["conv_in.bias"], torch.arange(4.0))
    assert read.token_table.shape == (TABLE_ROWS, 6)
    assert {tensor.dtype for tensor in (read.token_table, *read.unet.values())} == {torch.float32}
    save(read, path)
    again = load(path)
    assert again.architecture == ARCHITECTURE and torch.equal(again.token_table, read.token_table)
    assert all(torch.equal(again.unet[name], weight) for name, weight in read.unet.items())


def test_a_file_written_by_the_same_names_passes(path):
    rewrite(path)
    assert load(path).architecture == ARCHITECTURE


def test_a_missing_file_is_named(path):
    for gone in (path.with_name("none.safetensors"), path.parent):
        with pytest.raises(RuntimeError, match="weights are missing: expected the file") as error:
            load(gone)
        assert str(gone) in str(error.value) and "reinstall the pack" in str(error.value)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 8738190\n"
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "Git LFS pointer": lambda path: path.write_bytes(POINTER),
    "cut off in the header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "cut off in the weights": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "no architecture": lambda path: rewrite(path, architecture=None),
    "architecture is no JSON": lambda path: rewrite(path, architecture="{"),
    "architecture is a list": lambda path: rewrite(path, architecture="[1]"),
    "architecture without channels": lambda path: rewrite(path, architecture="{}"),
    "architecture with an unknown field": lambda path: rewrite(
        path, architecture=json.dumps({**asdict(ARCHITECTURE), "depth": 2})
    ),
    "no steps": lambda path: rewrite(path, trained_steps=None),
    "steps are no number": lambda path: rewrite(path, trained_steps="many"),
    "no token table": lambda path: rewrite(path, {"tokens.weight": None}),
    "a token table of other words": lambda path: rewrite(path, {"tokens.weight": torch.zeros(TABLE_ROWS + 1, 6)}),
    "a token table of another width": lambda path: rewrite(path, {"tokens.weight": torch.zeros(TABLE_ROWS, 7)}),
    "NaN in the network": lambda path: rewrite(path, {"unet.conv_in.bias": torch.full((4,), torch.nan)}),
    "infinity in the tokens": lambda path: rewrite(path, {"tokens.weight": torch.full((TABLE_ROWS, 6), torch.inf)}),
    "a tensor of something else": lambda path: rewrite(path, {"vae.weight": torch.zeros(1)}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named_with_the_file_and_what_to_do(path, damage):
    DAMAGES[damage](path)
    with pytest.raises(RuntimeError, match="weights are damaged: ") as error:
        load(path)
    assert str(path) in str(error.value) and "reinstall the pack" in str(error.value)


def test_the_shipped_file_is_sound():
    read = load()
    assert WEIGHTS.is_file() and read.trained_steps > 0
    assert all(width % read.architecture.channels[0] == 0 and width % 32 == 0 for width in read.architecture.channels)
    assert read.unet["conv_in.weight"].shape == (read.architecture.channels[0], 3, 3, 3)
    assert read.unet["conv_out.weight"].shape == (3, read.architecture.channels[0], 3, 3)


@pytest.mark.parametrize("change", [lambda file: file[:-1], lambda file: file[:-1] + bytes([file[-1] ^ 1])])
def test_the_shipped_file_is_not_parsed_when_it_is_not_the_shipped_one(path, monkeypatch, change):
    from demo import checkpoint

    sound = path.read_bytes()
    monkeypatch.setattr(checkpoint, "WEIGHTS", path)
    monkeypatch.setattr(checkpoint, "BYTES", len(sound))
    monkeypatch.setattr(checkpoint, "SHA256", hashlib.sha256(sound).hexdigest())
    assert load(path).architecture == ARCHITECTURE
    path.write_bytes(change(sound))
    monkeypatch.setattr(checkpoint, "safe_open", lambda *args, **kwargs: pytest.fail("parsed"))
    with pytest.raises(RuntimeError, match="weights are damaged: .* has .* bytes and the SHA-256 .*, expected"):
        load(path)
