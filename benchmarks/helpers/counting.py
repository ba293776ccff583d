"""Sees which steps a model is evaluated at, and which of them are guided."""


class Calls:
    """A clone of a model that notes every call of its network."""

    def __init__(self, model):
        self.model = model.clone()
        self.seen = []  # (sigma, what the host calls cond_or_uncond)
        self.model.set_model_unet_function_wrapper(self._note)

    def _note(self, apply_model, args):
        self.seen.append((args["timestep"].max().item(), tuple(args["cond_or_uncond"])))
        return apply_model(args["input"], args["timestep"], **args["c"])

    def guided(self):
        """The noise levels at which one branch was evaluated on its own once more, after both together."""
        return [sigma for sigma, branches in self.seen if len(branches) == 1]
