"""The guidance nodes: a schema each, and the adapter does the rest."""

from comfy_api.latest import io

from ..sag_core import CHOICES, RANGES, Settings
from .adapter import AUTO, guide_model, supported

CATEGORY = "guidance/self-attention"


def _number(name, step, tooltip, **fields):
    """A number's widget; its default and range are the settings' own."""
    default, (low, high) = getattr(Settings, name), RANGES[name]
    kind = io.Int if isinstance(default, int) else io.Float
    fields = supported(kind.Input, **fields)
    return kind.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip, **fields)


def _choice(name, tooltip, **fields):
    fields = supported(io.Combo.Input, **fields)
    return io.Combo.Input(name, options=list(CHOICES[name]), default=getattr(Settings, name), tooltip=tooltip, **fields)


def _switch(name, tooltip, **fields):
    fields = supported(io.Boolean.Input, **fields)
    return io.Boolean.Input(name, default=getattr(Settings, name), tooltip=tooltip, **fields)


def _model_scale_and_blur():
    """The inputs that both guidance nodes begin with."""
    return [
        io.Model.Input("model", tooltip="The model to guide."),
        _number(
            "scale",
            0.01,
            "How strongly to steer. 0 is off and costs nothing; 0.5 to 1 is usual for Stable Diffusion; "
            "high values saturate. Negative values make the image softer.",
        ),
        _number(
            "blur_sigma",
            0.1,
            "Width of the blur in latent pixels (one latent pixel is 8 image pixels in Stable Diffusion). "
            "Larger values remove larger details from the version that is steered away from.",
        ),
    ]


def _guided_model():
    return io.Model.Output(display_name="model", tooltip="The guided model, for any sampler or guider.")


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
                *_model_scale_and_blur(),
            ],
            outputs=[_guided_model()],
            **supported(io.Schema, search_aliases=["sag", "self attention guidance", "blur guidance"]),
        )

    @classmethod
    def execute(cls, model, scale, blur_sigma):
        return io.NodeOutput(guide_model(model, Settings(scale=scale, blur_sigma=blur_sigma)))


class SAGSelfAttentionGuidanceAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAGSelfAttentionGuidanceAdvanced",
            display_name="Self-Attention Guidance Advanced (SAG)",
            category=CATEGORY,
            description=(
                "Self-Attention Guidance with every choice open: when to guide, what to blur, which attention to read, "
                "and how to keep contrast. With its defaults it is exactly the plain Self-Attention Guidance node."
            ),
            inputs=[
                *_model_scale_and_blur(),
                _number(
                    "mask_threshold",
                    0.05,
                    "How much attention a place must receive to be blurred: 1 is the average (the paper), higher "
                    "values blur less of the image, 0 nearly all of it.",
                ),
                _number(
                    "start_percent",
                    0.001,
                    "Where in the noise schedule guidance begins: 0 is the first step. A start that is not below "
                    "end_percent guides nothing.",
                ),
                _number(
                    "end_percent",
                    0.001,
                    "Where in the noise schedule guidance ends: 1 is the last step. Steps from here on are not guided "
                    "and cost nothing.",
                ),
                _choice(
                    "scale_curve",
                    "The course of the scale from start_percent to end_percent. The fades ease guidance in or out "
                    "without a jump; bell is strongest in the middle.",
                ),
                io.String.Input(
                    "attention_blocks",
                    default=AUTO,
                    tooltip=(
                        "Whose attention decides what is blurred: auto, or a list such as 'middle.0' or "
                        "'input.7.0, output.3-5' ('8-12' for transformer models). Several are averaged."
                    ),
                    **supported(io.String.Input, advanced=True),
                ),
                _choice(
                    "mask_mode",
                    "What is blurred: what receives much attention (the paper), the same with graded edges, by "
                    "long-run attention (token_rank), all of it (global_blur), or, for comparison, fine detail "
                    "or random places.",
                    advanced=True,
                ),
                _choice(
                    "mask_upsampling",
                    "How the attention's coarse grid is enlarged to the latent: nearest (the paper) gives blocks, "
                    "bilinear smooth outlines.",
                    advanced=True,
                ),
                _number(
                    "mask_feather",
                    0.1,
                    "Width of the soft edge of what is blurred, in latent pixels; 0 is a hard edge.",
                    advanced=True,
                ),
                _choice(
                    "branch",
                    "Which prediction is blurred and compared: auto is the unconditional one (the negative prompt) "
                    "where it is evaluated, else the conditional one. Unconditional guides nothing at CFG 1.",
                    advanced=True,
                ),
                _number(
                    "blur_kernel",
                    1,
                    "Size of the blur in latent pixels, an odd number; 0 makes it as large as blur_sigma needs. 9 "
                    "gives the results of diffusers and of ComfyUI's own node.",
                    advanced=True,
                ),
                _number(
                    "rescale",
                    0.01,
                    "How much to hold back the contrast that guidance adds; 0 is off. Helps against saturation at "
                    "high scales.",
                    advanced=True,
                ),
                _choice(
                    "rescale_mode",
                    "What rescale compares: the whole prediction (full), the prompt's own prediction (partial), or "
                    "only that the prediction does not grow (norm_clamp).",
                    advanced=True,
                ),
                _switch(
                    "projection",
                    "Keep only the part of the guidance that is perpendicular to the prediction: less saturation, "
                    "the same detail.",
                    advanced=True,
                ),
                _number(
                    "apply_every",
                    1,
                    "Evaluate guidance at every k-th step only: at 2 it costs half as much.",
                    advanced=True,
                ),
                _switch(
                    "reuse",
                    "Between the steps of apply_every, apply the last guidance again instead of none.",
                    advanced=True,
                ),
                io.Mask.Input("mask", optional=True, tooltip="Guide only here. Any size; several masks are cycled."),
            ],
            outputs=[_guided_model()],
            **supported(io.Schema, search_aliases=["sag advanced", "self attention guidance advanced"]),
        )

    @classmethod
    def execute(cls, model, attention_blocks, mask=None, **settings):
        guided = guide_model(model, Settings(**settings), attention_blocks=attention_blocks, mask=mask)
        return io.NodeOutput(guided)
