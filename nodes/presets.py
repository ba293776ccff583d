"""The node that guides by settings under a name."""

from comfy_api.latest import io

from ..sag_core import PRESETS, Settings
from .adapter import supported
from .combinations import described
from .guidance import CATEGORY, TracedNode, guided_model_output, trace_output


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
                    "Which settings. default is the plain Self-Attention Guidance node, the paper's rule; sharper "
                    "compares images and fast does so at every third step; diffusers and ComfyUI built-in give the "
                    "results of those."
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
