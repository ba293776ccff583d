"""Removes from guidance what only makes a prediction stronger."""

from torch import Tensor

from .checks import check_floating, check_same_shape


def perpendicular(guidance: Tensor, prediction: Tensor) -> Tensor:
    """The part of `guidance` that is perpendicular to `prediction`, sample by sample.

    `g - (<g, p> / <p, p>) p`, as in adaptive projected guidance with eta = 0 (Sadat et al., ICLR 2025,
    arXiv 2410.02416): the parallel part raises saturation and hardly quality.

    Args:
        guidance, prediction: (b, c, h, w) or (b, c, t, h, w).

    Returns:
        The shape and dtype of `guidance`; `guidance` itself where the prediction is 0.

    Raises:
        ValueError: tensors of different shapes or not floating-point.
    """
    check_floating("guidance", guidance, (4, 5))
    check_same_shape("prediction", prediction, "guidance", guidance)
    axes = tuple(range(1, guidance.ndim))
    g, p = guidance.float(), prediction.float()
    length = p.square().sum(axes, keepdim=True)
    share = (g * p).sum(axes, keepdim=True) / length.where(length > 0, length.new_ones(()))
    return (g - share * p).to(guidance.dtype)
