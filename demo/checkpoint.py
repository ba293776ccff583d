"""The demo model's file: the UNet's weights, the token table, and what both engines need to know to build it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .prompts import TABLE_ROWS

WEIGHTS = Path(__file__).parent / "weights" / "sag_demo.safetensors"
BYTES, SHA256 = 8738190, "cec34d9b509ebc3452f2b8dcd56e51ef98da6586bb9f55c0da41f96b8b0ce84e"  # of the file above
TOKENS = "tokens.weight"
UNET = "unet."


@dataclass(frozen=True)
class Architecture:
    """Stable Diffusion 1's UNet, small: attention at the coarsest level and in the middle, two tokens of text.

    Attributes:
        size: rows and columns of a picture.
        channels: of every level, each a multiple of the first and of 32; the resolution halves from one to the next.
        heads: of every attention.
        token_width: columns of the token table.
        beta_start, beta_end: of the noise schedule over 1000 steps, linear in the square root ("scaled_linear").
    """

    size: int = 32
    channels: "tuple[int, ...]" = (64, 64, 128)
    heads: int = 4
    token_width: int = 64
    beta_start: float = 0.00085
    beta_end: float = 0.012


@dataclass(frozen=True)
class Checkpoint:
    """Weights in float32; the names in `unet` are those of diffusers' UNet2DConditionModel."""

    architecture: Architecture
    unet: "dict[str, Tensor]"
    token_table: Tensor  # (TABLE_ROWS, token_width)
    trained_steps: int


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write the file, in half precision."""
    tensors = {UNET + name: tensor for name, tensor in checkpoint.unet.items()}
    tensors[TOKENS] = checkpoint.token_table
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "architecture": json.dumps(asdict(checkpoint.architecture)),
        "trained_steps": str(checkpoint.trained_steps),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)


def load(path: Path = WEIGHTS) -> Checkpoint:
    """Read the file and check that it is whole; the one in this pack is compared with its hash before it is parsed.

    Raises:
        RuntimeError: the file is missing, damaged or of another pack; the message says what to do.
    """
    advice = "reinstall the pack, or restore the file with `git checkout`"
    if not path.is_file():
        raise RuntimeError(f"the demo model's weights are missing: expected the file {path}; {advice}")
    if path == WEIGHTS and (path.stat().st_size, _sha256(path)) != (BYTES, SHA256):
        raise RuntimeError(
            f"the demo model's weights are damaged: {path} has {path.stat().st_size} bytes and the SHA-256 "
            f"{_sha256(path)}, expected {BYTES} bytes and {SHA256}; {advice}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        stored = json.loads(metadata["architecture"])
        architecture = Architecture(**{**stored, "channels": tuple(stored["channels"])})
        table, steps = tensors.pop(TOKENS), int(metadata["trained_steps"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RuntimeError(
            f"the demo model's weights are damaged: {path} ({path.stat().st_size} bytes) cannot be read "
            f"({type(error).__name__}: {error}); a Git LFS pointer or a broken download looks like this; {advice}"
        ) from error
    broken = [name for name, tensor in {**tensors, TOKENS: table}.items() if not torch.isfinite(tensor).all()]
    if table.shape != (TABLE_ROWS, architecture.token_width):
        broken.append(f"{TOKENS} of shape {tuple(table.shape)}")
    broken += [name for name in tensors if not name.startswith(UNET)]
    if broken:
        raise RuntimeError(f"the demo model's weights are damaged: {path} holds {broken[0]} with bad values; {advice}")
    unet = {name[len(UNET) :]: tensor for name, tensor in tensors.items()}
    return Checkpoint(architecture, unet, table, steps)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
