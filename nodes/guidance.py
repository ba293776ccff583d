"""The guidance nodes: a schema each, and the adapter does the rest."""

from comfy_api.latest import io

from ..sag_core import Settings
from .adapter import guide_model, supported

CATEGORY = "guidance/self-attention"


class SAGSelfAttentionGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAGSelfAttentionGuidance",
            display_name="Self-Attention Guidance (SAG)",
            category=CATEGORY,
            description=(
                "Sharpens what the model draws. At each step it blurs the parts of the predicted image that the model "
                "pays most attention to, lets the model look at the blurred version, and steers away from the result. "
                "Costs one extra model evaluation per step. Place it between the model loader and any sampler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to guide."),
                io.Float.Input(
                    "scale",
                    default=Settings.scale,
                    min=-2.0,
                    max=5.0,
                    step=0.01,
                    tooltip=(
                        "How strongly to steer. 0 is off and costs nothing; 0.5 to 1 is usual for Stable Diffusion; "
                        "high values saturate. Negative values make the image softer."
                    ),
                ),
                io.Float.Input(
                    "blur_sigma",
                    default=Settings.blur_sigma,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip=(
                        "Width of the blur in latent pixels (one latent pixel is 8 image pixels in Stable Diffusion). "
                        "Larger values remove larger details from the version that is steered away from."
                    ),
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The guided model, for any sampler or guider.")],
            **supported(io.Schema, search_aliases=["sag", "self attention guidance", "blur guidance"]),
        )

    @classmethod
    def execute(cls, model, scale, blur_sigma):
        return io.NodeOutput(guide_model(model, Settings(scale=scale, blur_sigma=blur_sigma)))
