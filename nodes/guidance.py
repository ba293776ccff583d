"""The guidance nodes: a schema each, made from the settings' own declarations; the adapter does the rest."""

from dataclasses import fields

from comfy_api.latest import io

from ..sag_core import Settings, declarations
from .adapter import Trace, guide_model, is_wanted, read_names, recorded_in, supported, told_on

CATEGORY = "guidance/self-attention"
ALIASES = ["sag", "self attention guidance", "blur guidance", "attention guidance"]
TRACE = io.Custom("SAG_TRACE")
TRACE_OUTPUT = 1  # behind the model
WIDGETS = {float: io.Float, int: io.Int, bool: io.Boolean, str: io.String}


def _settings_inputs(*names: str):
    """The widgets of these settings, of all without a name."""
    declared = declarations()
    defaults = {setting.name: setting.default for setting in fields(Settings)}
    return [_widget(name, defaults[name], declared[name]) for name in names or declared]


def _widget(name, default, declared):
    kind = io.Combo if declared.choices else WIDGETS[type(default)]
    options = {"default": default, "tooltip": declared.meaning, "optional": declared.later}
    if declared.choices:
        options["options"] = list(declared.choices)
    if declared.range:
        options["min"], options["max"] = declared.range
        options["step"] = declared.step
    if declared.expert:
        options.update(supported(kind.Input, advanced=True))
    return kind.Input(name, **options)


def _model():
    return io.Model.Input("model", tooltip="The model to guide.")


def guided_model_output():
    return io.Model.Output(display_name="model", tooltip="The guided model, for any sampler or guider.")


def trace_output():
    return TRACE.Output(
        display_name="trace",
        tooltip="What guidance did at each step of the last run, for SAG Mask Preview. Recorded only if connected.",
    )


def _checked(**given):
    """What is wrong with the values of widgets, before anything runs; True where nothing is.

    Only what the host does not find by itself is asked here: numbers that are none, odd kernels, the form of a list of
    blocks. The host puts an answer on every input that it is asked about, so the answer names the one at fault.
    """
    try:
        # None comes over a link, and is read when the node runs.
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        if not settings.reads_blocks_by_itself:
            read_names(settings.attention_blocks)
    except ValueError as error:
        return str(error)
    return True


def _status(node):
    """Who tells under a node how guidance went; nobody where no host runs the node."""
    return [told_on(node.hidden.unique_id)] if node.hidden else []


class TracedNode(io.ComfyNode):
    """A node that guides a model and puts out a trace behind it."""

    @classmethod
    def fingerprint_inputs(cls, **_):
        # A model that was not recorded is of no use to who connects the trace later: it is to be made anew.
        return is_wanted(TRACE_OUTPUT)

    @classmethod
    def guide(cls, model, settings: Settings, mask=None):
        trace = Trace()
        watches = [recorded_in(trace)] if is_wanted(TRACE_OUTPUT) else []
        return guide_model(model, settings, mask=mask, watches=[*watches, *_status(cls)]), trace


class SAGSelfAttentionGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAGSelfAttentionGuidance",
            display_name="Self-Attention Guidance (SAG)",
            category=CATEGORY,
            description=(
                "Guides a model by its own attention. At each step it blurs the parts of the predicted image that the "
                "model pays most attention to, lets the model look at the blurred version, and steers away from the "
                "result. Costs one extra model evaluation per step. Place it between the model loader and any sampler."
            ),
            inputs=[_model(), *_settings_inputs("scale", "blur_sigma")],
            outputs=[guided_model_output()],
            hidden=[io.Hidden.unique_id],
            **supported(io.Schema, search_aliases=ALIASES),
        )

    @classmethod
    def validate_inputs(cls, scale=None, blur_sigma=None):
        return _checked(scale=scale, blur_sigma=blur_sigma)

    @classmethod
    def execute(cls, model, scale, blur_sigma):
        settings = Settings(scale=scale, blur_sigma=blur_sigma)
        return io.NodeOutput(guide_model(model, settings, watches=_status(cls)))


class SAGSelfAttentionGuidanceAdvanced(TracedNode):
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
                _model(),
                *_settings_inputs(),
                io.Mask.Input("mask", optional=True, tooltip="Guide only here. Any size; several masks are cycled."),
            ],
            outputs=[guided_model_output(), trace_output()],
            hidden=[io.Hidden.unique_id],
            **supported(io.Schema, search_aliases=[*ALIASES, "sag advanced"]),
        )

    @classmethod
    def validate_inputs(
        cls,
        scale=None,
        blur_sigma=None,
        mask_threshold=None,
        start_percent=None,
        end_percent=None,
        attention_blocks=None,
        mask_feather=None,
        blur_kernel=None,
        rescale=None,
    ):
        return _checked(
            scale=scale,
            blur_sigma=blur_sigma,
            mask_threshold=mask_threshold,
            start_percent=start_percent,
            end_percent=end_percent,
            attention_blocks=attention_blocks,
            mask_feather=mask_feather,
            blur_kernel=blur_kernel,
            rescale=rescale,
        )

    @classmethod
    def execute(cls, model, mask=None, **settings):
        return io.NodeOutput(*cls.guide(model, Settings(**settings), mask))
