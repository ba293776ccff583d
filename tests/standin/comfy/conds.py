"""What a conditioning entry hands to the model: how each value fits a batch, and when two may share one batch."""

import math

import torch


def _fit_batch(tensor, batch_size):
    copies = math.ceil(batch_size / tensor.shape[0])
    return tensor.repeat(copies, *[1] * (tensor.ndim - 1))[:batch_size] if copies > 1 else tensor[:batch_size]


class CONDRegular:
    def __init__(self, cond):
        self.cond = cond

    def process_cond(self, batch_size, **kwargs):
        return type(self)(_fit_batch(self.cond, batch_size))

    def can_concat(self, other):
        return self.cond.shape == other.cond.shape and self.cond.device == other.cond.device

    def concat(self, others):
        return torch.cat([self.cond, *(other.cond for other in others)])

    def size(self):
        return list(self.cond.shape)


class CONDNoiseShape(CONDRegular):
    """A value with the latent's height and width, cropped to the entry's area."""

    def process_cond(self, batch_size, area, **kwargs):
        cond = self.cond
        if area is not None:
            dims = len(area) // 2
            cond = cond[(..., *(slice(area[dims + i], area[dims + i] + area[i]) for i in range(dims)))]
        return type(self)(_fit_batch(cond, batch_size))


class CONDCrossAttn(CONDRegular):
    """Prompt tokens (b, n, d): repeating all of them leaves cross-attention as it is, so lengths may differ."""

    def can_concat(self, other):
        (b1, n1, d1), (b2, n2, d2) = self.cond.shape, other.cond.shape
        if (b1, d1) != (b2, d2) or self.cond.device != other.cond.device:
            return False
        return math.lcm(n1, n2) // min(n1, n2) <= 4  # more repetition than that costs too much

    def concat(self, others):
        conds = [self.cond, *(other.cond for other in others)]
        tokens = math.lcm(*(cond.shape[1] for cond in conds))
        return torch.cat([cond.repeat(1, tokens // cond.shape[1], 1) for cond in conds])


class CONDConstant(CONDRegular):
    """One value for the whole batch."""

    def process_cond(self, batch_size, **kwargs):
        return type(self)(self.cond)

    def can_concat(self, other):
        return self.cond == other.cond

    def concat(self, others):
        return self.cond

    def size(self):
        return [1]
