"""Many settings at once: a list of guided models, for one comparison of their pictures."""

from comfy_api.latest import io

from ..sag_core import PRESETS, Settings
from .adapter import guide_model, supported
from .combinations import combinations
from .guidance import CATEGORY
from .presets import preset_input


class SAGSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAGSweep",
            display_name="SAG Sweep",
            category=CATEGORY,
            description=(
                "Guides a model by every combination of some settings. Connect the models to one KSampler: it runs "
                "once for each, with the same seed. Connect its decoded images, labels and columns to SAG Compare Grid."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to guide."),
                io.String.Input(
                    "sweep",
                    multiline=True,
                    default="scale=0, 0.5, 0.75, 1; blur_sigma=1, 2",
                    tooltip=(
                        "Settings with their values, as name=value, value; separated by ; or line ends. Names and "
                        "values are those of the Advanced node, switches are on or off, and scale=0 is without "
                        "guidance. Every combination is drawn, at most 64."
                    ),
                    **supported(io.String.Input, dynamic_prompts=False),
                ),
                preset_input("The settings that the sweep does not name. Change this to look around another preset."),
            ],
            outputs=[
                io.Model.Output(
                    display_name="models", is_output_list=True, tooltip="A guided model for each combination."
                ),
                io.String.Output(
                    display_name="labels", is_output_list=True, tooltip="What was chosen, for each combination."
                ),
                io.Int.Output(
                    display_name="columns",
                    tooltip="How many values the first setting has: as many columns make a table of two settings.",
                ),
            ],
            **supported(io.Schema, search_aliases=["sag sweep", "self attention guidance xy plot", "sag grid search"]),
        )

    @classmethod
    def validate_inputs(cls, sweep=None):
        if sweep is None:  # comes over a link, and is read when the node runs
            return True
        try:
            combinations(sweep)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model, sweep, preset):
        found = combinations(sweep)
        models = [guide_model(model, Settings(**{**PRESETS[preset], **settings})) for settings in found.settings]
        return io.NodeOutput(models, found.labels, found.columns)
