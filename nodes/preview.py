"""What guidance blurred, to look at."""

from comfy_api.latest import io, ui

from .adapter import supported
from .guidance import CATEGORY, TRACE
from .pictures import STYLES, NoSuchStep, check_chosen, nothing_to_see, preview


class SAGMaskPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAGMaskPreview",
            display_name="SAG Mask Preview",
            category=CATEGORY,
            description=(
                "Shows what guidance saw and did: the attention of each step, what was blurred, and how strongly it "
                "steered. Connect the trace of a guidance node, and what the sampler draws with its model."
            ),
            inputs=[
                TRACE.Input("trace", optional=True, tooltip="The trace of the guidance node whose model is sampled."),
                io.MultiType.Input(
                    "after",
                    types=[io.Latent, io.Image],
                    tooltip=(
                        "What that sampler draws, as LATENT or as decoded IMAGE, so that the preview comes after it. "
                        "An IMAGE is also what styles are drawn on."
                    ),
                ),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default="overlay",
                    tooltip=(
                        "What to draw: the attention in colours (heat map), the edge of what is blurred (outline), "
                        "both on the image (overlay), both for all steps on one sheet (contact sheet), or how much was "
                        "blurred and how strong guidance was over the noise levels (plot)."
                    ),
                ),
                io.String.Input(
                    "step",
                    default="middle",
                    tooltip=(
                        "Which of the guided steps: first, middle, last, all, or the number of a step. A contact sheet "
                        "and a plot show all of them anyhow."
                    ),
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The decoded image to draw on, where 'after' is a LATENT."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="preview", tooltip="The pictures, one for each step, image and frame."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="What was blurred at the chosen steps, at the size of the image or else of the latent.",
                ),
            ],
            is_output_node=True,
            **supported(
                io.Schema,
                search_aliases=["sag preview", "self attention mask", "attention map", "heat map", "show mask"],
            ),
        )

    @classmethod
    def validate_inputs(cls, step=None):
        if step is None:  # comes over a link, and is read when the node runs
            return True
        try:
            check_chosen(step)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, after, style, step, trace=None, image=None):
        if image is None and not isinstance(after, dict):  # a LATENT is a dictionary
            image = after
        problem = "No trace is connected: is the guidance node bypassed?" if trace is None else trace.problem()
        try:
            pictures, masks = nothing_to_see(problem, image) if problem else preview(trace.run, style, step, image)
        except NoSuchStep as none:
            pictures, masks = nothing_to_see(str(none), image)
        return io.NodeOutput(pictures, masks, ui=ui.PreviewImage(pictures, cls=cls))
