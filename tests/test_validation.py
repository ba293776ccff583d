"""What the nodes answer before anything runs, on the stand-in host; on the real server in tests/host."""

import math

import on_standin
import pytest

MEGABYTE = "x" * 1_000_000
MOST_CHARACTERS = 400  # of an answer, whatever came


def answer(node_id, **values):
    return on_standin.node_classes()[node_id].validate_inputs(**values)


@pytest.mark.parametrize(
    "values, names",
    [
        ({"scale": math.nan}, "scale must be a finite number, got nan"),
        ({"scale": 10**400}, "scale must lie in [-2, 5], got 1000"),
        ({"blur_sigma": 10.5}, "blur_sigma must lie in [0, 10], got 10.5"),
        ({"rescale": -math.inf}, "rescale must be a finite number, got -inf"),
        ({"blur_kernel": 4}, "blur_kernel must be odd, or 0 for automatic, got 4"),
        ({"scale": "much"}, "scale must be a finite number, got 'much'"),
        ({"mask_feather": [[[1]]]}, "mask_feather must be a finite number"),
        ({"attention_blocks": ""}, "attention_blocks must be 'auto' or a list such as"),
        ({"attention_blocks": "middle.0;output.1"}, "attention_blocks holds 'middle.0;output.1'"),
        ({"attention_blocks": "9-3"}, "attention_blocks holds the range '9-3', whose end lies before its start"),
        ({"attention_blocks": "0-9999"}, "attention_blocks must name at most 1000 blocks"),
        ({"attention_blocks": ",".join(["0-9999"] * 100_000)}, "attention_blocks must name at most 1000 blocks"),
        ({"attention_blocks": "1," * 100_000 + "1"}, "attention_blocks must name at most 1000 blocks"),
        ({"attention_blocks": MEGABYTE}, "attention_blocks holds 'xxx"),
        ({"attention_blocks": ["middle.0"]}, "attention_blocks must be text, got ['middle.0']"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_value_is_named_briefly(values, names):
    said = answer("SAGSelfAttentionGuidanceAdvanced", **values)
    assert isinstance(said, str) and said.startswith(names)
    assert len(said) < MOST_CHARACTERS


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"scale": None, "attention_blocks": None},  # over links
        {"scale": -2.0, "blur_kernel": 127, "attention_blocks": " AUTO "},
        {"attention_blocks": "input.7.0, output.3-5, 8"},  # whether a model has them is asked when there is one
    ],
)
def test_what_may_be_right_passes(values):
    assert answer("SAGSelfAttentionGuidanceAdvanced", **values) is True


def test_the_plain_node_asks_as_well():
    assert answer("SAGSelfAttentionGuidance", scale=math.nan) == "scale must be a finite number, got nan"
    assert answer("SAGSelfAttentionGuidance", scale=1.0, blur_sigma=2.0) is True


@pytest.mark.parametrize("name, other", [("prompt", "negative_prompt"), ("negative_prompt", "prompt")])
@pytest.mark.parametrize("value", ["a red zebra", MEGABYTE, "a " * 500_000 + "zebra", ["x"], {"a": {"b": {}}}, 3, True])
def test_only_the_wrong_prompt_is_named(name, other, value):
    said = answer("SAGDemoModel", **{name: value, other: "a red duck"})
    assert said.startswith(f"{name} must be ") and len(said) < MOST_CHARACTERS
    assert answer("SAGDemoModel", **{name: None, other: "a red duck"}) is True
