"""The node inside the real ComfyUI: what only the real host can show."""

import math

import comfy.samplers
import pytest
import torch
from contract import WHOLE_RUN, latent, prompts
from reference import guide_by_reference, relative_error


def nearest_block(network):
    return network.output_blocks[0][1].transformer_blocks[0]


@pytest.mark.parametrize("cfg", [7.0, 1.0])
@pytest.mark.parametrize(
    "family, how",
    [
        ("sd15", {}),
        ("sd2", {}),
        ("sd2", {"prediction": "v"}),
        ("sdxl", {}),
        ("sdxl", {"prediction": "v"}),
        ("refiner", {}),
        ("ssd1b", {"block": nearest_block}),
        ("vega", {"block": nearest_block}),
        ("sd15", {"depth_middle": -2, "block": nearest_block}),  # as in SDXS: no middle block at all
    ],
)
def test_every_unet_family_equals_the_reference(host, guide, family, how, cfg):
    how = dict(how)
    block = how.pop("block", None)
    model = host.unet(family=family, **how)
    positive, negative = prompts(host)
    plain = host.sample(model, positive, negative, latent(12, 20), cfg=cfg)
    expected = host.sample(guide_by_reference(model, block=block), positive, negative, latent(12, 20), cfg=cfg)
    ours = host.sample(guide(model), positive, negative, latent(12, 20), cfg=cfg)
    assert relative_error(expected, plain) > 1e-3
    assert relative_error(ours, expected) < WHOLE_RUN


@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler_with_every_scheduler(host, guide, sampler):
    model = host.unet()
    with torch.no_grad():
        model.model.diffusion_model.out[-1].weight.mul_(0.05)  # smooth enough for solvers that choose their own steps
    guided = guide(model)
    positive, negative = prompts(host)
    for scheduler in comfy.samplers.KSampler.SCHEDULERS:
        how = {"sampler": sampler, "scheduler": scheduler, "cfg": 2.0, "seed": 3}
        plain = host.sample(model, positive, negative, latent(8, 8), **how)
        ours = host.sample(guided, positive, negative, latent(8, 8), **how)
        assert ours.isfinite().all(), scheduler
        assert relative_error(ours, plain) > 1e-5, scheduler


def test_equals_the_built_in_node_at_equal_settings(host, guide):
    """At sizes it handles, with a negative, one batch: sigma 1 is the widest that its nine taps hold untruncated."""
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    model = host.unet(channel_mult=(1, 1, 1, 1), depth=(0, 0, 0, 1))
    positive, negative = prompts(host)
    theirs = SelfAttentionGuidance.execute(model, 0.75, 1.0).args[0]
    for steps in (1, 3):
        expected = host.sample(theirs, positive, negative, latent(64, 64), steps=steps)
        ours = host.sample(guide(model), positive, negative, latent(64, 64), steps=steps)
        assert relative_error(ours, expected) < 1e-4


def run_nodes(node_classes, model, positive, negative, samples, kind):
    """Sample through ComfyUI's own sampler nodes."""
    from comfy_extras import nodes_custom_sampler as custom

    if kind == "KSampler":
        (out,) = node_classes["KSampler"]().sample(
            model, 5, 4, 3.0, "euler", "normal", positive, negative, {"samples": samples}
        )
        return out["samples"]
    if kind == "KSamplerAdvanced":  # two passes, the noise left over in between
        node = node_classes["KSamplerAdvanced"]()
        (half,) = node.sample(
            model, "enable", 5, 4, 3.0, "euler", "normal", positive, negative, {"samples": samples}, 0, 2, "enable"
        )
        (out,) = node.sample(
            model, "disable", 0, 4, 3.0, "euler", "normal", positive, negative, half, 2, 100, "disable"
        )
        return out["samples"]

    class Noise:
        seed = 5

        def generate_noise(self, latent_image):
            return comfy.sample.prepare_noise(latent_image["samples"], self.seed)

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(3.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)
    run = getattr(custom.SamplerCustomAdvanced, "execute", None) or custom.SamplerCustomAdvanced().sample
    result = run(Noise(), guider, comfy.samplers.sampler_object("euler"), sigmas, {"samples": samples})
    return getattr(result, "args", result)[0]["samples"]


@pytest.mark.parametrize("kind", ["KSampler", "KSamplerAdvanced", "SamplerCustomAdvanced"])
def test_goes_into_every_sampler_node_unchanged(node_classes, host, guide, kind):
    model = host.unet()
    positive, negative = prompts(host)
    results = [
        run_nodes(node_classes, m, positive, negative, latent(12, 16), kind)
        for m in (guide(model), guide_by_reference(model), model)
    ]
    assert relative_error(results[0], results[1]) < WHOLE_RUN
    assert relative_error(results[0], results[2]) > 1e-3


def test_the_schema_is_what_workflows_were_saved_with(node_classes):
    node = node_classes["SAGSelfAttentionGuidance"]
    inputs = node.INPUT_TYPES()["required"]
    assert list(inputs) == ["model", "scale", "blur_sigma"]
    limits = {
        name: tuple(inputs[name][1][key] for key in ("default", "min", "max", "step")) for name in list(inputs)[1:]
    }
    assert limits == {"scale": (0.75, -2.0, 5.0, 0.01), "blur_sigma": (1.0, 0.0, 10.0, 0.1)}
    assert all(options.get("tooltip") for _, options in inputs.values())
    assert node.RETURN_TYPES == ["MODEL"] and all(node.OUTPUT_TOOLTIPS)
    assert node.CATEGORY == "guidance/self-attention" and node.DESCRIPTION
    schema = node.GET_SCHEMA()
    assert schema.display_name == "Self-Attention Guidance (SAG)"
    assert "sag" in getattr(schema, "search_aliases", ["sag"])


def test_the_built_in_node_is_left_alone(node_classes):
    import comfy_extras.nodes_sag as built_in

    assert node_classes.get("SelfAttentionGuidance") in (None, built_in.SelfAttentionGuidance)


def test_an_interrupted_run_leaves_nothing_behind(host, guide):
    import comfy.model_management

    guided = guide(host.unet())
    positive, negative = prompts(host)
    expected = host.sample(guided, positive, negative, latent(12, 16), steps=3)
    interrupting, calls = guided.clone(), []

    def interrupt(apply_model, args):
        calls.append(1)
        if len(calls) == 3:
            comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()
        return apply_model(args["input"], args["timestep"], **args["c"])

    interrupting.set_model_unet_function_wrapper(interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        host.sample(interrupting, positive, negative, latent(12, 16), steps=3)
    assert torch.equal(host.sample(guided, positive, negative, latent(12, 16), steps=3), expected)


def test_prediction_types_share_one_rule(host, guide):
    """EDM predicts x0 directly: guidance must not depend on how the network speaks."""
    model = host.unet(prediction="edm")
    positive, negative = prompts(host)
    ours = host.sample(guide(model), positive, negative, latent(12, 16), cfg=3.0)
    expected = host.sample(guide_by_reference(model), positive, negative, latent(12, 16), cfg=3.0)
    assert relative_error(ours, expected) < WHOLE_RUN
    assert math.isfinite(ours.norm())
