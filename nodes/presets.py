"""Settings under a name, and the node that guides by them."""

from typing import Any

from comfy_api.latest import io

from ..sag_core import Settings
from .adapter import supported
from .combinations import described
from .guidance import CATEGORY, TracedNode, guided_model_output, trace_output

# What differs from the Advanced node's defaults. Saved workflows hold the name alone, so a preset never changes under
# its name: a better one gets a new name, and the old one stays.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper ADM": {"scale": 0.5, "blur_sigma": 9.0, "blur_kernel": 31, "attention_blocks": "output.2"},
    "diffusers": {"scale": 0.75, "blur_sigma": 1.0, "blur_kernel": 9},
    "ComfyUI built-in": {"scale": 0.5, "blur_sigma": 2.0, "blur_kernel": 9, "branch": "unconditional"},
    "gentle for SDXL": {"scale": 0.4, "blur_sigma": 0.5, "scale_curve": "cosine_fade_out"},
}


def preset_input(tooltip: str):
    return io.Combo.Input("preset", options=list(PRESETS), default="default", tooltip=tooltip)


class SAGPreset(TracedNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAGPreset",
            display_name="Self-Attention Guidance Preset (SAG)",
            category=CATEGORY,
            description=(
                "Guides a model by settings that are known to go together. What a name stands for never changes, so a "
                "saved workflow keeps giving the same pictures. Place it between the model loader and any sampler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to guide."),
                preset_input(
                    "Which settings. default is the plain Self-Attention Guidance node, diffusers and ComfyUI built-in "
                    "give the results of those; choose a gentle one when pictures come out too hard or too soft."
                ),
            ],
            outputs=[
                guided_model_output(),
                trace_output(),
                io.String.Output(
                    display_name="settings",
                    tooltip="What the preset stands for: inputs of the Advanced node, as SAG Sweep reads them.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **supported(io.Schema, search_aliases=["sag preset", "self attention guidance preset"]),
        )

    @classmethod
    def execute(cls, model, preset):
        settings = PRESETS[preset]
        return io.NodeOutput(*cls.guide(model, Settings(**settings)), described(settings))
