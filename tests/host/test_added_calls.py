"""Nodes that add attention calls to a model's blocks, as NAG for Wan does, cost no guidance."""

import comfy.ldm.modules.attention
import pytest
import torch
from families import ORDERS, build, family_named, in_order
from outcomes import sample


def patched(model, names, change):
    """A clone whose modules of these names do what `change` makes of their forward."""
    model = model.clone()
    for name in names:
        forward = model.get_model_object(f"{name}.forward")
        model.add_object_patch(f"{name}.forward", change(forward))
    return model


def asked(seen):
    """A forward that is followed by a cross-attention of its own, whose answer nobody uses."""

    def change(forward):
        def followed(*args, **kwargs):
            out = forward(*args, **kwargs)
            tokens = (out[0] if isinstance(out, tuple) else out).detach()
            seen.append(tokens.shape)
            comfy.ldm.modules.attention.optimized_attention(
                tokens, tokens[:, :7], tokens[:, :7], 2, transformer_options=kwargs["transformer_options"]
            )
            return out

        return followed

    return change


BLOCKS = {
    "Wan 2.1 text to video": ["blocks"],
    "Wan 2.1 image to video": ["blocks"],
    "HunyuanVideo": ["double_blocks", "single_blocks"],
    "Flux.1 dev": ["double_blocks", "single_blocks"],
    "Qwen-Image": ["transformer_blocks"],
    "Lumina 2": ["layers"],
    "LTX-Video": ["transformer_blocks"],
}


@ORDERS
@pytest.mark.parametrize("name", BLOCKS)
def test_an_added_call_changes_nothing_of_the_guidance(guide, caplog, name, order):
    """Bit for bit: what the added call answers is thrown away."""
    family = family_named(name)
    model, seen = build(family), []
    network = model.model.diffusion_model
    names = [f"diffusion_model.{part}.{i}" for part in BLOCKS[name] for i in range(len(getattr(network, part)))]
    guided = in_order(order, guide, lambda m: patched(m, names, asked(seen)), model)
    assert torch.equal(sample(guided, family, cfg=4.0), sample(guide(model), family, cfg=4.0))
    assert len(seen) >= 2 * len(names)
    assert not [record for record in caplog.records if record.name == "self-attention-guidance"]


def copied(value):
    """Blocks write into what they are given."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def nag(forward):
    """Normalised attention guidance as it is done for Wan: the cross-attention once more, for another text."""

    def twice(x, context, **kwargs):
        there, away = forward(x, context, **kwargs), forward(x, context.flip(1) * 0.5, **kwargs)
        mixed = there + 0.5 * (there - away)
        return mixed * (there.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True).clamp_min(1e-6))

    return twice


@ORDERS
@pytest.mark.parametrize("cfg", [4.0, 1.0])
def test_nag_for_wan_beside_guidance(guide, caplog, order, cfg):
    family = family_named("Wan 2.1 text to video")

    def with_nag(model):
        return patched(model, [f"diffusion_model.blocks.{i}.cross_attn" for i in range(6)], nag)

    model = build(family)
    guided = in_order(order, guide, with_nag, model)
    image, plain = sample(guided, family, cfg), sample(with_nag(model), family, cfg)
    assert not [record for record in caplog.records if record.name == "self-attention-guidance"]
    assert (image - plain).abs().max() > 1e-3 * plain.abs().max()
    assert not torch.equal(plain, sample(model, family, cfg))


@ORDERS
@pytest.mark.parametrize("name", ["Flux.1 dev", "Qwen-Image", "HunyuanVideo", "Wan 2.1 text to video"])
def test_a_self_attention_that_is_made_twice_is_that_of_one_block(guide, caplog, name, order):
    """Where the host names the block; where it does not, nothing tells the second call from the next block's."""
    family, named = family_named(name), []

    def again(forward):
        def twice(*args, **kwargs):
            named.append("block_index" in kwargs["transformer_options"])
            out = forward(*args, **kwargs)
            forward(*map(copied, args), **{name: copied(value) for name, value in kwargs.items()})
            return out

        return twice

    model = build(family)
    network = model.model.diffusion_model
    names = [f"diffusion_model.{part}.{i}" for part in BLOCKS[name] for i in range(len(getattr(network, part)))]
    image = sample(in_order(order, guide, lambda m: patched(m, names, again), model), family, cfg=4.0)
    if not any(named):
        pytest.skip("this host names no blocks")
    assert torch.equal(image, sample(guide(model), family, cfg=4.0))
    assert not [record for record in caplog.records if record.name == "self-attention-guidance"]
