"""What becomes of a model family on this host: guided, or refused with a warning; and what was seen in it."""

import logging
from functools import cache

from families import FAMILIES, build, conditioning, empty_latent
from real_host import RealHost

EVALUATION = "self_attention_guidance_evaluation"


def sample(model, family, cfg, steps=2, batch=None):
    positive, negative = conditioning(family, seed=1), conditioning(family, seed=2)
    latent = empty_latent(family, batch or family.batch)
    return RealHost().sample(model, positive, negative, latent, cfg=cfg, steps=steps, scheduler="simple")


def spied(model):
    """A clone of a guided model, and the list that what was seen at its latents appears in."""
    model, passes = model.clone(), []

    def post_cfg(args):
        passes.append(args["model_options"]["transformer_options"][EVALUATION].find(args["input"]))
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(post_cfg)
    return model, passes


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@cache
def outcome(family_name, guide):
    """Of a run with CFG: guided or refused, the warnings, the image with the node, with scale 0 and without it."""
    family = next(family for family in FAMILIES if family.name == family_name)
    model = build(family)
    heard = Warnings()
    logger = logging.getLogger("self-attention-guidance")
    logger.addHandler(heard)
    try:
        guided = sample(guide(model), family, cfg=4.0)
    finally:
        logger.removeHandler(heard)
    latents = guided, sample(guide(model, scale=0), family, cfg=4.0), sample(model, family, cfg=4.0)
    video = (streams(latent)[0] for latent in latents)
    return ("refused" if heard.messages else "guided"), heard.messages, *video


def streams(latent):
    """The latents of a packed one: video, then sound."""
    return latent.unbind() if getattr(latent, "is_nested", False) else [latent]
