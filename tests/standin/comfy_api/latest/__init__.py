"""Node schemas as 0.3.64 takes them: each input accepts that version's parameters and no others (no `advanced`)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter, Signature
from types import SimpleNamespace

_BASE = {"display_name": None, "optional": False, "tooltip": None, "lazy": None}
_SOCKET = {"socketless": None, "force_input": None}
_NUMBER = {"default": None, "min": None, "max": None, "step": None}
_OUTPUT = {"id": None, "display_name": None, "tooltip": None, "is_output_list": False}


class NumberDisplay(str, Enum):
    number = "number"
    slider = "slider"


class _Declared:
    """Keeps what it was declared with as attributes, and in `kwargs`; an unknown parameter is a TypeError."""

    io_type = None
    parameters = {}

    def __init__(self, *args, **kwargs):
        signature = Signature(
            [
                Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default)
                for name, default in self.parameters.items()
            ]
        )
        bound = signature.bind(*args, **kwargs)
        self.kwargs = dict(bound.arguments)
        bound.apply_defaults()
        self.__dict__.update(bound.arguments)

    def get_io_type(self):
        return self.io_type


def _declare(io_type, parameters=_BASE, output=_OUTPUT):
    members = {"io_type": io_type}
    inputs = {"id": Parameter.empty, **parameters}
    members["Input"] = type("Input", (_Declared,), {"io_type": io_type, "parameters": inputs})
    members["Output"] = type("Output", (_Declared,), {"io_type": io_type, "parameters": output})
    return type(io_type.title(), (), members)


@dataclass
class Schema:
    node_id: str
    display_name: str = None
    category: str = "sd"
    inputs: list = None
    outputs: list = None
    hidden: list = None
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def validate(self):
        for output_number, output in enumerate(self.outputs or []):
            output.id = output.id or f"_{output_number}_{output.io_type}_"
        ids = [port.id for port in (self.inputs or []) + (self.outputs or [])]
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        if repeated:
            raise ValueError(f"ids of inputs and outputs must be unique, but {repeated} are not")


class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"


class MultiType:
    class Input(_Declared):
        parameters = {"id": Parameter.empty, "types": Parameter.empty, **_BASE}

        def get_io_type(self):
            return ",".join(kind.io_type for kind in self.types)


class ComfyNode(ABC):
    hidden = None

    @classmethod
    @abstractmethod
    def define_schema(cls):
        """Return the node's Schema."""

    @classmethod
    @abstractmethod
    def execute(cls, **kwargs):
        """Do the node's work and return a NodeOutput."""

    @classmethod
    def GET_SCHEMA(cls):
        schema = cls.define_schema()
        schema.validate()
        return schema


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution

    @property
    def result(self):
        return self.args or None

    def __getitem__(self, index):
        return self.args[index]


class ComfyExtension(ABC):
    async def on_load(self):
        pass

    @abstractmethod
    async def get_node_list(self):
        """Return the node classes of the pack."""


io = SimpleNamespace(
    Schema=Schema,
    ComfyNode=ComfyNode,
    NodeOutput=NodeOutput,
    NumberDisplay=NumberDisplay,
    Custom=_declare,
    Hidden=Hidden,
    MultiType=MultiType,
    Model=_declare("MODEL"),
    Mask=_declare("MASK"),
    Image=_declare("IMAGE"),
    Latent=_declare("LATENT"),
    Conditioning=_declare("CONDITIONING"),
    Vae=_declare("VAE"),
    Boolean=_declare("BOOLEAN", {**_BASE, "default": None, "label_on": None, "label_off": None, **_SOCKET}),
    Int=_declare("INT", {**_BASE, **_NUMBER, "control_after_generate": None, "display_mode": None, **_SOCKET}),
    Float=_declare("FLOAT", {**_BASE, **_NUMBER, "round": None, "display_mode": None, **_SOCKET}),
    String=_declare(
        "STRING",
        {**_BASE, "multiline": False, "placeholder": None, "default": None, "dynamic_prompts": None, **_SOCKET},
    ),
    Combo=_declare(
        "COMBO",
        {
            "options": None,
            **_BASE,
            "default": None,
            "control_after_generate": None,
            "upload": None,
            "image_folder": None,
            "remote": None,
            "socketless": None,
        },
        {"id": None, "display_name": None, "options": None, "tooltip": None, "is_output_list": False},
    ),
)

ui = SimpleNamespace(PreviewImage=lambda image, cls=None: SimpleNamespace(image=image))
