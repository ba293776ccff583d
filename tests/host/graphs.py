"""What may stand in a graph beside guidance: ComfyUI's own nodes, its guiders, a ControlNet."""

import importlib
import inspect

import comfy.controlnet
import comfy.samplers
import pytest
import torch
from contract import latent


def node(module, name, *values, **named):
    """A function that puts one of ComfyUI's own nodes on a model; skips where this version does not have it."""

    def apply(model):
        try:
            node_class = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
        except (ImportError, AttributeError):
            pytest.skip(f"this ComfyUI has no {name}")
        run = getattr(node_class, "execute", None) or getattr(node_class(), node_class.FUNCTION)
        result = run(model, *values, **named)
        return getattr(result, "args", result)[0]

    return apply


OTHERS = {
    "PAG": node("nodes_pag", "PerturbedAttentionGuidance", 3.0),
    "FreeU": node("nodes_freelunch", "FreeU", 1.1, 1.2, 0.9, 0.2),
    "FreeU V2": node("nodes_freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2),
    "RescaleCFG": node("nodes_model_advanced", "RescaleCFG", 0.7),
    "CFGNorm": node("nodes_cfg", "CFGNorm", 1.0),
    "CFGZeroStar": node("nodes_cfg", "CFGZeroStar"),
    "APG": node("nodes_apg", "APG", 1.0, 5.0, 0.0),
    "TCFG": node("nodes_tcfg", "TCFG"),
    "Mahiro": node("nodes_mahiro", "Mahiro"),
    "FreSca": node("nodes_fresca", "FreSca", 1.0, 1.25, 5),
    "NAG": node("nodes_nag", "NAGuidance", 5.0, 0.5, 1.5),
    "attention multiply": node("nodes_attention_multiply", "UNetSelfAttentionMultiply", 1.2, 1.1, 0.9, 1.0),
    "HyperTile off the middle": node("nodes_hypertile", "HyperTile", 64, 2, 0, False),
    "Deep Shrink": node(
        "nodes_model_downscale", "PatchModelAddDownscale", 1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic"
    ),
    "Deep Shrink by 1.5": node(
        "nodes_model_downscale", "PatchModelAddDownscale", 2, 1.5, 0.0, 0.5, False, "bilinear", "bilinear"
    ),
    "EpsilonScaling": node("nodes_eps", "EpsilonScaling", 1.005),
    "v-prediction patched on": node("nodes_model_advanced", "ModelSamplingDiscrete", "v_prediction", False),
    "EDM patched on": node("nodes_model_advanced", "ModelSamplingContinuousEDM", "edm", 120.0, 0.002),
}


def sample_with(guider, size=(12, 16), steps=2, sampler="euler"):
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", steps)
    start = latent(*size)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        return guider.sample(noise, start, comfy.samplers.sampler_object(sampler), sigmas, disable_pbar=True, seed=7)


def guider(kind, model, host):
    from comfy_extras import nodes_custom_sampler as custom
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    a, b, c = (host.conditioning(seed=seed) for seed in (1, 2, 3))
    if kind == "CFGGuider":
        chosen = comfy.samplers.CFGGuider(model)
        chosen.set_conds(a, b)
        chosen.set_cfg(4.0)
    elif kind == "BasicGuider":
        chosen = custom.Guider_Basic(model)
        chosen.set_conds(a)
    elif kind.startswith("DualCFGGuider"):
        chosen = custom.Guider_DualCFG(model)
        chosen.set_conds(a, b, c)
        chosen.set_cfg(*((3.0, 1.0) if "1" in kind else (3.0, 2.0)), nested="nested" in kind)
    elif kind.startswith("PerpNegGuider"):
        chosen = Guider_PerpNeg(model)
        chosen.set_conds(a, b, c)
        chosen.set_cfg(4.0, 0.0 if "0" in kind else 1.0)
    else:
        if not hasattr(custom, "Guider_DualModel"):
            pytest.skip("this ComfyUI has no DualModelGuider")
        chosen = custom.Guider_DualModel(model, host.unet(seed=9))
        chosen.set_conds(a, b)
        chosen.set_cfg(4.0)
    return chosen


GUIDERS = [
    "CFGGuider", "BasicGuider", "DualCFGGuider", "DualCFGGuider nested", "DualCFGGuider at 1", "PerpNegGuider",
]  # fmt: skip


def windows(length, overlap, schedule="standard_static", fuse="flat", dim=2, loop=False, stride=1, **newer):
    """ComfyUI's node of context windows, with what newer hosts have beside it off unless asked for."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    known = inspect.signature(ContextWindowsManualNode.execute).parameters
    if not set(newer) <= set(known):
        return lambda model: pytest.skip(f"the context windows of this ComfyUI have no {', '.join(newer)}")
    newer = {**{name: False for name in ("freenoise", "causal_window_fix") if name in known}, **newer}
    return node(
        "nodes_context_windows", "ContextWindowsManualNode", length, overlap, schedule, stride, loop, fuse, dim, **newer
    )


class ControlNet(comfy.controlnet.ControlBase):
    """A ControlNet without a network: it adds `strength(sigma)` to the middle block's features, 64 channels wide."""

    def __init__(self, asked=None, strength=lambda sigma: 0.3):
        super().__init__()
        self.asked, self.strength_at = [] if asked is None else asked, strength

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        self.asked.append(x_noisy.shape[0])
        features = torch.ones(x_noisy.shape[0], 64, x_noisy.shape[2] // 2, x_noisy.shape[3] // 2)
        return {"middle": [self.strength_at(t[0].item()) * features], "output": [], "input": []}
