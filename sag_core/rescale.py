"""Keeps a guided prediction from gaining contrast."""

from torch import Tensor

from .checks import check_choice, check_floating, check_number, check_same_shape

RESCALE_MODES = ("full", "partial", "norm_clamp")


def rescaled(denoised: Tensor, guidance: Tensor, reference: Tensor, amount: float, mode: str = "full") -> Tensor:
    """Add guidance to a prediction, weakened as far as it would raise the prediction's contrast.

    "full" and "partial" are the two rescales of the ComfyUI pack sd-perturbed-attention, after Lin et al. 2023
    (arXiv 2305.08891, section 3.4), with std over all axes but the batch:

        full:     factor = std(reference) / std(denoised + guidance)       guided = denoised + f * guidance
        partial:  factor = std(reference) / std(reference + guidance)      guided = denoised + f * guidance
                  f = amount * factor + (1 - amount)

    "norm_clamp" holds the norm instead, and never enlarges it, as the norm limit of Qwen-Image's CFG does:

        factor = min(1, |denoised| / |denoised + guidance|)                guided = f * (denoised + guidance)

    Args:
        denoised: the prediction to guide, (b, c, ...).
        guidance: what is to be added to it, in the same shape.
        reference: the conditional prediction, whose contrast is held, in the same shape.
        amount: 0..1; 0 is neutral: `denoised + guidance`.
        mode: one of RESCALE_MODES.

    Raises:
        ValueError: tensors of different shapes or not floating-point, an amount outside 0..1, an unknown mode.
    """
    check_floating("denoised", denoised, (4, 5))
    for name, tensor in (("guidance", guidance), ("reference", reference)):
        check_same_shape(name, tensor, "denoised", denoised)
    check_number("rescale", amount, 0, 1)
    check_choice("rescale_mode", mode, RESCALE_MODES)
    guided = denoised + guidance
    if amount == 0:
        return guided
    axes = tuple(range(1, denoised.ndim))
    if mode == "norm_clamp":
        factor = _ratio(_norm(denoised, axes), _norm(guided, axes)).clamp(max=1.0)
        return guided * (amount * factor + (1 - amount)).to(guided.dtype)
    compared = guided if mode == "full" else reference + guidance
    factor = _ratio(_std(reference, axes), _std(compared, axes))
    return denoised + guidance * (amount * factor + (1 - amount)).to(guidance.dtype)


def _std(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.float().std(dim=axes, keepdim=True)


def _norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.float().square().sum(dim=axes, keepdim=True).sqrt()


def _ratio(wanted: Tensor, got: Tensor) -> Tensor:
    """wanted / got, 1 where there is nothing to compare."""
    comparable = (wanted > 0) & (got > 0)
    return (wanted / got).where(comparable, wanted.new_ones(()))
