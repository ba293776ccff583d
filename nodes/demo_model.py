"""The demo model: a UNet so small that it lies in the pack, for trying guidance without any checkpoint."""

from comfy_api.latest import io

from ..demo.prompts import COLOURS, OBJECTS, tokens
from ..sag_core.checks import check_number
from .adapter import supported
from .guidance import CATEGORY

MOST_PICTURES = 64


class SAGDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAGDemoModel",
            display_name="SAG Demo Model",
            category=CATEGORY,
            description=(
                "A small trained model that lies in this pack: try guidance in seconds, without a checkpoint and "
                "without a graphics card. It draws tiny pictures of simple things. Use it as any checkpoint: connect "
                "the outputs to a KSampler and to VAE Decode."
            ),
            inputs=[
                io.String.Input(
                    "prompt",
                    default="a red mushroom",
                    tooltip=(
                        f"At most one colour ({', '.join(COLOURS)}) and one object ({', '.join(OBJECTS)}). The model "
                        "chooses what is left out."
                    ),
                ),
                io.String.Input(
                    "negative_prompt",
                    default="",
                    tooltip=(
                        "What to keep away from, in the same words; has no effect at CFG 1. Empty is the usual choice."
                    ),
                ),
                io.Int.Input(
                    "batch_size", default=4, min=1, max=MOST_PICTURES, tooltip="How many pictures to draw at once."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for guidance nodes and any sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt, as a sampler takes it."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative prompt, as a sampler takes it."),
                io.Latent.Output(display_name="latent", tooltip="An empty latent of the model's size."),
                io.Vae.Output(display_name="vae", tooltip="What makes pictures of latents, and latents of pictures."),
            ],
            **supported(io.Schema, search_aliases=["sag demo", "self attention guidance demo", "tiny model"]),
        )

    @classmethod
    def validate_inputs(cls, prompt=None, negative_prompt=None):
        # The host puts an answer on both inputs, whichever is wrong: the answer names it.
        for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if text is None:  # comes over a link, and is read when the node runs
                continue
            try:
                tokens(text, name)
            except ValueError as error:
                return str(error)
        return True

    @classmethod
    def execute(cls, prompt, negative_prompt, batch_size):
        check_number("batch_size", batch_size, 1, MOST_PICTURES)  # the host does not look at what comes over a link
        # Not before: nobody else needs the weights and what reads them.
        from ..demo import checkpoint
        from .adapter import demo

        loaded = checkpoint.load()
        return io.NodeOutput(
            demo.model_of(loaded),
            demo.conditioning(loaded, tokens(prompt)),
            demo.conditioning(loaded, tokens(negative_prompt, "negative_prompt")),
            demo.empty_latent(loaded, batch_size),
            demo.pixel_vae(),
        )
