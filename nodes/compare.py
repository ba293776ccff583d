"""Labelled pictures side by side."""

from comfy_api.latest import io, ui

from .adapter import supported
from .guidance import CATEGORY
from .pictures import Zoom, comparison

MORE = ("images_2", "images_3", "images_4")


class SAGCompareGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        advanced = supported(io.Float.Input, advanced=True)
        return io.Schema(
            node_id="SAGCompareGrid",
            display_name="SAG Compare Grid",
            category=CATEGORY,
            description=(
                "Puts images side by side on one sheet, each under its label: those of SAG Sweep, or any others. The "
                "images of a batch stand below each other."
            ),
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip=(
                        "What to compare: all that arrives here, as from a KSampler behind SAG Sweep. The first one "
                        "is what the others are measured against. A single batch is compared image by image."
                    ),
                ),
                io.String.Input(
                    "labels",
                    multiline=True,
                    default="",
                    tooltip="What stands above the images, one line for each. Those without a line are numbered.",
                    **supported(io.String.Input, dynamic_prompts=False),
                ),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="How many images stand in a row; 0 chooses. Connect the columns of SAG Sweep for a table.",
                ),
                io.Int.Input(
                    "cell_size",
                    default=512,
                    min=64,
                    max=2048,
                    step=8,
                    tooltip=(
                        "How large every image is shown, in pixels of its longer side. Turn this up when details "
                        "drown, down when the sheet gets too large."
                    ),
                ),
                io.Float.Input(
                    "difference",
                    default=0.0,
                    min=0.0,
                    max=64.0,
                    step=0.5,
                    tooltip=(
                        "Show below each image how it differs from the first, so many times enlarged; grey is no "
                        "difference, 0 shows none. Turn this up when you cannot see what changed."
                    ),
                ),
                io.Boolean.Input(
                    "metrics",
                    default=False,
                    tooltip=(
                        "Write above each image how close it is to the first: PSNR in decibels and SSIM up to 1. They "
                        "measure likeness, not quality."
                    ),
                ),
                io.Float.Input(
                    "zoom",
                    default=1.0,
                    min=1.0,
                    max=16.0,
                    step=0.5,
                    tooltip="Show a part of each image so many times enlarged in its corner; 1 shows none.",
                    **advanced,
                ),
                io.Float.Input(
                    "zoom_x",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where the enlarged part lies: 0 is the left edge, 1 the right one.",
                    **advanced,
                ),
                io.Float.Input(
                    "zoom_y",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where the enlarged part lies: 0 is the upper edge, 1 the lower one.",
                    **advanced,
                ),
                *(
                    io.Image.Input(name, optional=True, tooltip="More to compare, behind the images above.")
                    for name in MORE
                ),
            ],
            outputs=[io.Image.Output(display_name="sheet", tooltip="The sheet, one image.")],
            is_input_list=True,  # all that a list brings becomes one sheet
            is_output_node=True,
            **supported(
                io.Schema,
                search_aliases=[
                    "self attention comparison",
                    "image grid",
                    "compare images",
                    "contact sheet",
                    "xy plot",
                ],
            ),
        )

    @classmethod
    def execute(cls, images, labels, columns, cell_size, difference, metrics, zoom, zoom_x, zoom_y, **more):
        entries = [
            image for images_of_one in (images, *(more.get(name) or () for name in MORE)) for image in images_of_one
        ]
        sheet = comparison(
            entries,
            [line.strip() for text in labels for line in text.splitlines() or [""]],
            columns=columns[0],
            cell=cell_size[0],
            difference=difference[0],
            metrics=metrics[0],
            zoom=Zoom(zoom[0], zoom_x[0], zoom_y[0]),
        )
        return io.NodeOutput(sheet, ui=ui.PreviewImage(sheet, cls=cls))
