"""What is measured of a set of pictures, each measure with what it has to notice."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import features, metrics

SURE = 0.9


class Measure(NamedTuple):
    """A number that says how good pictures are.

    Attributes:
        better: -1 where lower is better, 1 where higher is.
        sees: the faults (of `faults.FAULTS`) that it is there to notice; all others must not make it better.
    """

    better: int
    sees: "tuple[str, ...]"


LOOKS = ("grain", "blur", "unsharp mask", "colour shift", "joined halves")
ALL = LOOKS + ("missing objects",)
MEASURES = {}
for network in ("faults", "names", "imagenet"):
    MEASURES[f"FD, {network}"] = Measure(-1, ALL)
    MEASURES[f"KID, {network}"] = Measure(-1, ALL)
    MEASURES[f"precision, {network}"] = Measure(1, LOOKS)
    MEASURES[f"recall, {network}"] = Measure(1, ("missing objects",))
    MEASURES[f"coverage, {network}"] = Measure(1, ALL)
MEASURES["spectrum, dB"] = Measure(-1, ("grain", "blur", "unsharp mask"))
MEASURES["sure of the object"] = Measure(1, ("joined halves",))


class Judge:
    """Compares sets of pictures with real ones.

    Args:
        real: (n, 3, h, w) uint8.
        networks: which of `features.extractors` to compare by; default all that are installed.
    """

    def __init__(self, real: Tensor, networks: "Sequence[str]" = ()) -> None:
        found = features.extractors()
        self._networks = {name: network for name, network in found.items() if name in networks or not networks}
        self._real = real
        self._features = {name: features_of(network, real) for name, network in self._networks.items()}
        self._classifier = features.load("faults")

    def __call__(self, images: Tensor) -> "dict[str, float]":
        """The measures of a set of pictures (n, 3, h, w) uint8, by name."""
        values = {}
        for name, network in self._networks.items():
            real, drawn = self._features[name], features_of(network, images)
            values[f"FD, {name}"] = metrics.frechet_distance(real, drawn)
            values[f"KID, {name}"] = metrics.kernel_distance(real, drawn)
            near = metrics.neighbourhoods(real, drawn)
            values.update({f"{measure}, {name}": near[measure] for measure in ("precision", "recall", "coverage")})
        values["spectrum, dB"] = metrics.spectrum_distance(self._real, images)
        values["sure of the object"] = sure_of_the_object(self._classifier, images)
        return values


def features_of(network, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(64)])


def sure_of_the_object(classifier: features.Classifier, images: Tensor) -> float:
    """Share of pictures whose object the classifier names with a probability above `SURE`."""
    with torch.no_grad():
        things = torch.cat([classifier.named(part)[1] for part in images.split(64)])
    return (things.softmax(1).amax(1) > SURE).float().mean().item()
