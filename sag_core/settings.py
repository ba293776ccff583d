"""The choices a user makes: each declared once, with its default, its range or choices, and what it means."""

from dataclasses import dataclass, field, fields
from reprlib import repr as shown  # cut short: what came may be a megabyte of text
from typing import Any, NamedTuple, Optional

from .checks import check_choice, check_number
from .guidance import DIFFERENCES
from .mask_modes import MASK_MODES
from .rescale import RESCALE_MODES
from .schedule import SCALE_CURVES

AUTO = "auto"
BRANCHES = (AUTO, "unconditional", "conditional")
UPSAMPLINGS = ("nearest", "bilinear")


class Declaration(NamedTuple):
    """What is known of a setting beside its name and default.

    Attributes:
        meaning: for users: what it does, and which way to turn it.
        range: the least and the greatest value of a number.
        step: by which a number is turned up or down.
        choices: of a setting that is one of several words.
        expert: whether it is for people who look for it.
        later: whether it came after a release, so that what was saved before lacks it.
    """

    meaning: str
    range: Optional[tuple[float, float]] = None
    step: Optional[float] = None
    choices: Optional[tuple[str, ...]] = None
    expert: bool = False
    later: bool = False


def _number(default: float, low: float, high: float, step: float, meaning: str, expert: bool = False) -> Any:
    return field(default=default, metadata={"is": Declaration(meaning, (low, high), step, None, expert)})


def _choice(default: str, choices: tuple[str, ...], meaning: str, expert: bool = False, later: bool = False) -> Any:
    return field(default=default, metadata={"is": Declaration(meaning, choices=choices, expert=expert, later=later)})


def _other(default: Any, meaning: str, expert: bool = False) -> Any:
    return field(default=default, metadata={"is": Declaration(meaning, expert=expert)})


@dataclass(frozen=True)
class Settings:
    """How strongly and when to guide, what attention to read, and what to degrade. The defaults are the plain method.

    `declarations` has the meaning and the range of each. scale is s of SAG equation 16 and mask_threshold psi in units
    of the average attention. The window is half-open: its start is inside, its end is not. Which blocks a model has is
    not known here, so attention_blocks is checked by who reads them.

    Raises:
        ValueError: a number that is not finite or out of range, an unknown choice, an even blur_kernel.
    """

    scale: float = _number(
        0.75, -2.0, 5.0, 0.01,
        "How strongly to steer. 0 is off and costs nothing; 0.5 to 1 is usual for Stable Diffusion; "
        "high values saturate. Turn up when too little changes, down when pictures burn. Negative values make the "
        "image softer.",
    )  # fmt: skip
    blur_sigma: float = _number(
        1.0, 0.0, 10.0, 0.1,
        "Width of the blur in latent pixels (one latent pixel is 8 image pixels in Stable Diffusion). "
        "Larger values remove larger details from the version that is steered away from. Turn up when larger shapes "
        "should change, down when only fine detail should.",
    )  # fmt: skip
    mask_threshold: float = _number(
        1.0, 0.0, 4.0, 0.05,
        "How much attention a place must receive to be blurred: 1 is the average (the paper), higher "
        "values blur less of the image, 0 nearly all of it. Turn up when too much of the image changes, down when "
        "too little does.",
    )  # fmt: skip
    start_percent: float = _number(
        0.0, 0.0, 1.0, 0.001,
        "Where in the noise schedule guidance begins: 0 is the first step. A start that is not below "
        "end_percent guides nothing. Turn up when the composition should stay as it is without guidance.",
    )  # fmt: skip
    end_percent: float = _number(
        1.0, 0.0, 1.0, 0.001,
        "Where in the noise schedule guidance ends: 1 is the last step. Steps from here on are not guided "
        "and cost nothing. Turn down when fine detail comes out too hard, or to save time.",
    )  # fmt: skip
    scale_curve: str = _choice(
        "constant", tuple(SCALE_CURVES),
        "The course of the scale from start_percent to end_percent. The fades ease guidance in or out "
        "without a jump; bell is strongest in the middle.",
    )  # fmt: skip
    attention_blocks: str = _other(
        AUTO,
        "Whose attention decides what is blurred: auto, or a list such as 'middle.0' or "
        "'input.7.0, output.3-5' ('8-12' for transformer models). Several are averaged.",
        expert=True,
    )
    mask_mode: str = _choice(
        "self_attention", tuple(MASK_MODES),
        "What is blurred: what receives much attention (the paper), the same with graded edges, by "
        "long-run attention (token_rank), all of it (global_blur), or, for comparison, fine detail "
        "or random places.",
        expert=True,
    )  # fmt: skip
    mask_upsampling: str = _choice(
        "nearest", UPSAMPLINGS,
        "How the attention's coarse grid is enlarged to the latent: nearest (the paper) gives blocks, "
        "bilinear smooth outlines.",
        expert=True,
    )  # fmt: skip
    mask_feather: float = _number(
        0.0, 0.0, 10.0, 0.1,
        "Width of the soft edge of what is blurred, in latent pixels; 0 is a hard edge. Turn up when the blocks of the "
        "mask show in the image.",
        expert=True,
    )  # fmt: skip
    branch: str = _choice(
        AUTO, BRANCHES,
        "Which prediction is blurred and compared: auto is the unconditional one (the negative prompt) "
        "where it is evaluated, else the conditional one. Unconditional guides nothing at CFG 1.",
        expert=True,
    )  # fmt: skip
    blur_kernel: int = _number(
        0, 0, 127, 1,
        "Size of the blur in latent pixels, an odd number; 0 makes it as large as blur_sigma needs. 9 "
        "gives the results of diffusers and of ComfyUI's own node.",
        expert=True,
    )  # fmt: skip
    rescale: float = _number(
        0.0, 0.0, 1.0, 0.01,
        "How much to hold back the contrast that guidance adds; 0 is off. Turn up when colours or contrast get too "
        "strong.",
        expert=True,
    )  # fmt: skip
    rescale_mode: str = _choice(
        "full", RESCALE_MODES,
        "What rescale compares: the whole prediction (full), the prompt's own prediction (partial), or "
        "only that the prediction does not grow (norm_clamp).",
        expert=True,
    )  # fmt: skip
    projection: bool = _other(
        False,
        "Keep only the part of the guidance that is perpendicular to the prediction: less saturation, the same detail.",
        expert=True,
    )
    apply_every: int = _number(
        1, 1, 100, 1,
        "Evaluate guidance at every k-th step only: at 2 it costs half as much. Turn up to save time.",
        expert=True,
    )  # fmt: skip
    reuse: bool = _other(
        False,
        "Between the steps of apply_every, apply the last guidance again instead of none.",
        expert=True,
    )
    difference: str = _choice(
        "noise", DIFFERENCES,
        "What is compared with the blurred version's: the predicted noise (the paper), which calms and softens, or "
        "the predicted image, which sharpens. detail adds what the blur removes, an unsharp mask: it sharpens too and "
        "costs no evaluation. Turn to image when pictures come out too soft.",
        later=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, declared in declarations().items():
            value = getattr(self, name)
            if declared.range is not None:
                check_number(name, value, *declared.range)
            if declared.choices is not None:
                check_choice(name, value, declared.choices)
        if not isinstance(self.attention_blocks, str):
            raise ValueError(f"attention_blocks must be text, got {shown(self.attention_blocks)}")
        for name in ("blur_kernel", "apply_every"):
            if getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"{name} must be a whole number, got {shown(getattr(self, name))}")
        if self.blur_kernel and self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel must be odd, or 0 for automatic, got {shown(self.blur_kernel)}")

    @property
    def reads_blocks_by_itself(self) -> bool:
        """Whether attention_blocks leaves the choice to who reads them."""
        return self.attention_blocks.strip().lower() == AUTO


def declarations() -> dict[str, Declaration]:
    """Every setting by name, in the order in which users see them."""
    return {setting.name: setting.metadata["is"] for setting in fields(Settings)}
