"""The Advanced node inside the real ComfyUI."""

import logging
import sys

import comfy.samplers
import pytest
import torch
from by_hand import guide_noise
from counting import Calls
from reference import guide_by_reference, relative_error

CLOSE = 1e-4


@pytest.fixture(scope="module")
def model(host):
    return host.unet()


def sample(host, model, size=(12, 16), batch=1, **how):
    positive, negative = host.conditioning(seed=1), host.conditioning(seed=2)
    return host.sample(model, positive, negative, torch.zeros(batch, 4, *size), **{"steps": 2, **how})


def block(section, number, index=0):
    return lambda network: getattr(network, f"{section}_blocks")[number][1].transformer_blocks[index]


@pytest.mark.parametrize("how", [{}, {"cfg": 1.0}, {"guider": "basic"}, {"batch": 2}], ids=str)
@pytest.mark.parametrize("scale, blur_sigma", [(0.75, 1.0), (-0.5, 3.0)])
def test_its_defaults_are_the_plain_node_bit_for_bit(host, guide, advanced, model, how, scale, blur_sigma):
    plain = sample(host, guide(model, scale=scale, blur_sigma=blur_sigma), **how)
    ours = sample(host, advanced(model, scale=scale, blur_sigma=blur_sigma), **how)
    assert torch.equal(ours, plain)
    assert not torch.equal(plain, sample(host, model, **how))


def test_it_has_the_plain_nodes_defaults(guide, node_classes):
    plain, advanced = (
        {i.id: i.default for i in node_classes[name].define_schema().inputs if hasattr(i, "default")}
        for name in ("SAGSelfAttentionGuidance", "SAGSelfAttentionGuidanceAdvanced")
    )
    assert plain.items() <= advanced.items()


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.5},
        {"blur_sigma": 2.0},
        {"mask_threshold": 1.2},
        {"start_percent": 0.3},
        {"end_percent": 0.5},
        {"scale_curve": "linear_fade_out"},
        {"scale_curve": "cosine_fade_out"},
        {"scale_curve": "fade_in"},
        {"scale_curve": "bell"},
        {"attention_blocks": "output.1"},
        {"mask_mode": "soft_self_attention"},
        {"mask_mode": "global_blur"},
        {"mask_mode": "high_frequency"},
        {"mask_mode": "random"},
        {"mask_mode": "token_rank", "mask_upsampling": "bilinear"},
        {"mask_upsampling": "bilinear"},
        {"mask_feather": 1.0},
        {"branch": "conditional"},
        {"blur_kernel": 3},
        {"rescale": 0.7},
        {"rescale": 0.7, "rescale_mode": "partial"},
        {"rescale": 0.7, "rescale_mode": "norm_clamp"},
        {"projection": True},
        {"apply_every": 2},
        {"apply_every": 2, "reuse": True},
        {"mask": torch.eye(16)},
    ],
    ids=str,
)
def test_every_input_changes_the_image_and_keeps_it_finite(host, advanced, model, change):
    how = {"size": (16, 16), "steps": 3}
    changed = sample(host, advanced(model, **change), **how)
    assert changed.isfinite().all()
    assert relative_error(changed, sample(host, advanced(model), **how)) > 1e-5
    assert relative_error(changed, sample(host, model, **how)) > 1e-5
    # The same choice gives the same image: nothing is left of an earlier run.
    assert torch.equal(changed, sample(host, advanced(model, **change), **how))


def test_no_scale_is_the_model_without_the_node(host, advanced, model):
    calls = Calls(advanced(model, scale=0.0, mask_mode="token_rank", mask=torch.ones(8, 8)))
    assert torch.equal(sample(host, calls.model), sample(host, model))
    assert calls.guided() == []


# Where the attention is read


@pytest.mark.parametrize("name, place", [("output.1", block("output", 1)), ("input.1.0", block("input", 1))])
def test_a_named_block_is_read(host, advanced, model, name, place):
    ours = sample(host, advanced(model, attention_blocks=name), steps=1)
    assert relative_error(ours, sample(host, guide_by_reference(model, block=place), steps=1)) < CLOSE


def test_auto_is_the_first_transformer_of_the_middle(host, advanced):
    sdxl = host.unet(family="sdxl")
    images = [
        sample(host, advanced(sdxl, attention_blocks=name)) for name in ("auto", " AUTO ", "middle.0", "middle.0.0")
    ]
    assert all(torch.equal(image, images[0]) for image in images)
    assert not torch.equal(images[0], sample(host, advanced(sdxl, attention_blocks="middle.0.2")))


@pytest.mark.parametrize("order", ["output.3, middle.0, output.1", "middle.0, output.1, output.3"])
def test_several_blocks_are_averaged_on_the_finest_grid(host, advanced, model, order):
    places = [block("output", 3), lambda network: network.middle_block[1].transformer_blocks[0], block("output", 1)]
    ours = sample(host, advanced(model, attention_blocks=order, blur_kernel=9), size=(12, 18))
    expected = guide_noise(model, 0.75, 1.0, 9, lambda network: [place(network) for place in places])
    assert relative_error(ours, sample(host, expected, size=(12, 18))) < CLOSE


def test_a_block_named_twice_counts_once_and_a_range_names_each(host, advanced, model):
    one, twice = (
        sample(host, advanced(model, attention_blocks=names)) for names in ("output.1", "output.1, output.1.0")
    )
    assert torch.equal(one, twice)
    spanned, each = ("output.0-3", "output.0,output.1,output.2,output.3")
    images = [sample(host, advanced(model, attention_blocks=names)) for names in (spanned, each)]
    assert torch.equal(*images) and not torch.equal(images[0], one)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "attention_blocks must be 'auto' or a list such as"),
        ("middle.0,", "attention_blocks must be 'auto' or a list such as"),
        ("output.10", "names 'output.10', which this model lacks; it has input.1.0, input.3.0, middle.0.0, output.0.0"),
        ("middle.0.1", "names 'middle.0.1', which this model lacks"),
        ("output.2-4", "names 'output.4', which this model lacks"),
        ("output.3-2", "the range 'output.3-2', whose end lies before its start"),
        ("middle", "holds 'middle'; a block is named like"),
        ("output.-1", "holds 'output.-1'; a block is named like"),
        ("8", "names '8', which this model lacks"),
    ],
)
def test_blocks_that_the_model_lacks_are_an_error_that_lists_what_it_has(advanced, model, text, message):
    with pytest.raises(ValueError, match=message):
        advanced(model, attention_blocks=text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("output.10", ["J"]),
        ("output.10.1, output.9", ["K", "I"]),
        ("OUTPUT.9-10", ["I", "J"]),
        ("1", ["one"]),
        ("10", ["ten"]),
        ("9 - 11", ["nine", "ten", "eleven"]),
    ],
)
def test_numbers_match_exactly(node_classes, text, expected):
    """1 is not 10: neither for UNets, nor for transformers, whose blocks have one number."""
    package = node_classes["SAGSelfAttentionGuidanceAdvanced"].__module__.rpartition(".")[0]
    parse_blocks = sys.modules[f"{package}.adapter.blocks"].parse_blocks
    unet = {"output.9.0": "I", "output.10.0": "J", "output.10.1": "K"}
    blocks = {**unet, "1": "one", "9": "nine", "10": "ten", "11": "eleven"}
    assert list(parse_blocks(text, blocks)) == expected
    with pytest.raises(ValueError, match="'output.1', which this model lacks; it has output.9.0, output.10.0-1$"):
        parse_blocks("output.1", unet)


def test_long_lists_of_blocks_are_shortened(host, advanced):
    with pytest.raises(ValueError, match=r"middle\.0\.0-2, "):
        advanced(host.unet(family="sdxl"), attention_blocks="middle.9")


# Which branch is guided


@pytest.mark.parametrize("branch, rerun", [("auto", (1,)), ("unconditional", (1,)), ("conditional", (0,))])
def test_the_chosen_branch_is_evaluated_again(host, advanced, model, branch, rerun):
    calls = Calls(advanced(model, branch=branch))
    sample(host, calls.model)
    assert [branches for _, branches in calls.seen] == [(1, 0), rerun] * 2


def test_the_conditional_branch_is_read_and_degraded(host, advanced, model):
    """With the prompts exchanged, CFG 0 for 1, and so no other guidance, both branches give the same image."""
    one, other = host.conditioning(seed=1), host.conditioning(seed=2)
    start = torch.zeros(1, 4, 12, 16)
    conditional = host.sample(advanced(model, branch="conditional"), one, other, start, cfg=0.0)
    exchanged = host.sample(advanced(model, branch="unconditional"), other, one, start, cfg=1.0000001)
    assert relative_error(conditional, exchanged) < CLOSE
    assert relative_error(conditional, host.sample(model, one, other, start, cfg=0.0)) > CLOSE


def test_without_a_negative_conditional_is_auto(host, advanced, model):
    images = [sample(host, advanced(model, branch=b), guider="basic") for b in ("auto", "conditional")]
    assert torch.equal(*images)


def test_unconditional_at_cfg_1_guides_nothing_and_says_why(host, advanced, model, caplog):
    with caplog.at_level(logging.WARNING):
        ours = sample(host, advanced(model, branch="unconditional"), cfg=1.0)
    assert torch.equal(ours, sample(host, model, cfg=1.0))
    assert caplog.text.count("the unconditional branch was not evaluated; it never is at CFG 1") == 1


# How often it is evaluated


@pytest.mark.parametrize("every, steps, evaluations", [(1, 6, 6), (2, 6, 3), (3, 6, 2), (3, 7, 3), (100, 6, 1)])
@pytest.mark.parametrize("reuse", [False, True])
def test_every_kth_step_is_evaluated(host, advanced, model, every, steps, evaluations, reuse):
    calls = Calls(advanced(model, apply_every=every, reuse=reuse).clone())
    sample(host, calls.model, size=(8, 8), steps=steps)
    assert len(calls.guided()) == evaluations
    assert calls.seen[0][0] == calls.guided()[0]  # the first step is


def test_every_kth_counts_from_the_start_of_the_window(host, advanced, model):
    calls = Calls(advanced(model, apply_every=2, start_percent=0.3))
    sample(host, calls.model, size=(8, 8), steps=6)
    main = [sigma for sigma, branches in calls.seen if len(branches) == 2]
    inside = main[main.index(calls.guided()[0]) :]
    assert len(inside) < len(main)
    assert calls.guided() == inside[::2]


def test_between_the_steps_it_is_skipped_or_applied_again(host, advanced, model):
    """Two steps, the first one guided: without reuse the second is an unguided one, with reuse it is not."""
    how = {"size": (8, 8), "steps": 2, "scheduler": "simple"}
    first_only = sample(host, advanced(model, end_percent=0.5), **how)
    assert torch.equal(sample(host, advanced(model, apply_every=2), **how), first_only)
    again = sample(host, advanced(model, apply_every=2, reuse=True), **how)
    full = sample(host, advanced(model), **how)
    assert relative_error(again, first_only) > CLOSE and relative_error(again, full) > CLOSE


def test_reuse_adds_what_the_last_evaluated_step_added(host, advanced, model):
    """Three steps: the reference guides the first and the third, and the second by what it added to the first."""
    remembering, last = model.clone(), []
    guided = guide_by_reference(model).model_options["sampler_post_cfg_function"][-1]

    def post_cfg(args):
        steps.append(args["sigma"])
        if len(steps) % 2:
            last[:] = [guided(args) - args["denoised"]]
        return args["denoised"] + last[0]

    steps = []
    remembering.set_model_sampler_post_cfg_function(post_cfg)
    ours = sample(host, advanced(model, apply_every=2, reuse=True), steps=3)
    assert relative_error(ours, sample(host, remembering, steps=3)) < CLOSE


class TwoLooks:
    """A sampler of one step that evaluates the model at a few latents in turn and keeps what came of them."""

    def __init__(self, *latents, sigmas=(5.0, 1.0)):
        self.latents, self.sigmas, self.seen = latents, sigmas, []

    def __call__(self, host, model):
        def look(model, x, sigmas, extra_args=None, callback=None, disable=None, **more):
            for latent, sigma in zip(self.latents, self.sigmas):
                self.seen.append(model(latent, torch.full((latent.shape[0],), sigma), **extra_args))
            return x

        run = comfy.samplers.CFGGuider(model)
        run.set_conds(host.conditioning(seed=1), host.conditioning(seed=2))
        run.set_cfg(4.0)
        start = torch.zeros_like(self.latents[0])
        sigmas = torch.tensor([*self.sigmas, 0.0])
        with torch.inference_mode():
            run.sample(start, start, comfy.samplers.KSAMPLER(look), sigmas, disable_pbar=True)
        return self.seen


def noise(*size):
    return torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(5))


def test_reuse_has_nothing_for_a_latent_of_another_size_and_says_so(host, advanced, model, caplog):
    small, large = noise(8, 8), noise(12, 16)
    plain = TwoLooks(small, large)(host, model)
    ours = TwoLooks(small, large)(host, advanced(model, apply_every=2, reuse=True))
    assert not torch.equal(ours[0], plain[0]) and torch.equal(ours[1], plain[1])
    assert caplog.text.count("the latent changed its size, and reuse has no guidance for the new one") == 1


@pytest.mark.parametrize("mode, alike", [("self_attention", True), ("random", False)])
def test_random_tokens_are_other_ones_in_every_evaluation(host, advanced, model, mode, alike):
    x = noise(12, 16)
    one, other = TwoLooks(x, x.clone(), sigmas=(5.0, 5.0))(host, advanced(model, mask_mode=mode))
    assert torch.equal(one, other) == alike


def test_steps_of_one_noise_level_at_the_start_of_the_window_are_guided(host, advanced, model):
    """Samplers may stay at their first noise level for a step: every second level is guided, from the first on."""
    calls, levels = Calls(advanced(model, apply_every=2)), (14.0, 14.0, 5.0, 1.0)
    TwoLooks(*[noise(8, 8)] * 4, sigmas=levels)(host, calls.model)
    assert calls.guided() == [14.0, 14.0, 1.0]


# An answer that is not finite


def broken_at(model, call):
    """A clone whose re-run of this number answers the second sample of a batch with NaN."""
    model, calls = model.clone(), []

    def wrapper(apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"]).clone()
        if len(args["cond_or_uncond"]) == 1:
            calls.append(1)
            if len(calls) == call:
                out[1] = float("nan")
        return out

    model.set_model_unet_function_wrapper(wrapper)
    return model


def test_a_broken_step_of_a_sample_is_an_unguided_one(host, advanced, model, caplog):
    """Two steps, the first re-run broken: the sample is guided in the second alone."""
    how = {"batch": 2, "steps": 2, "scheduler": "simple"}
    ours = sample(host, broken_at(advanced(model), call=1), **how)
    assert torch.equal(ours[0], sample(host, advanced(model), **how)[0])
    second = sample(host, advanced(model, start_percent=0.3), **how)[1]
    assert torch.equal(ours[1], second) and not torch.equal(second, sample(host, model, **how)[1])
    assert caplog.text.count("was not finite") == 1


@pytest.mark.parametrize("reuse", [False, True])
def test_a_broken_step_is_not_applied_again(host, advanced, model, caplog, reuse):
    """Steps 1 and 3 are evaluated, and the first is broken: its sample stays unguided until the third."""
    settings, how = {"apply_every": 2, "reuse": reuse}, {"batch": 2, "steps": 4, "scheduler": "simple"}
    ours = sample(host, broken_at(advanced(model, **settings), call=1), **how)
    assert torch.equal(ours[0], sample(host, advanced(model, **settings), **how)[0])
    late = sample(host, advanced(model, start_percent=0.4, **settings), **how)[1]
    assert torch.equal(ours[1], late) and ours.isfinite().all()
    assert caplog.text.count("was not finite") == 1


def test_reuse_survives_a_curve_that_begins_at_nothing(host, advanced, model):
    calls = Calls(advanced(model, apply_every=3, reuse=True, scale_curve="fade_in"))
    assert sample(host, calls.model, size=(8, 8), steps=6, scheduler="simple").isfinite().all()
    assert len(calls.guided()) in (2, 3)


# Several nodes


def test_two_nodes_whose_windows_adjoin_are_one(host, advanced, model):
    one = sample(host, advanced(model), steps=4)
    two = sample(host, advanced(advanced(model, end_percent=0.4), start_percent=0.4), steps=4)
    assert torch.equal(one, two)


def test_two_nodes_look_each_at_its_own_attention(host, advanced, model):
    """The term of each is added: at one step, together they make the sum of their differences."""
    ways = [
        {"attention_blocks": "middle.0", "mask_mode": "token_rank"},
        {"attention_blocks": "output.1", "branch": "conditional"},
    ]
    plain = sample(host, model, steps=1)
    alone = [sample(host, advanced(model, **way), steps=1) - plain for way in ways]
    together = sample(host, advanced(advanced(model, **ways[0]), **ways[1]), steps=1) - plain
    assert relative_error(together, alone[0] + alone[1]) < CLOSE


# Transformer and video models


def family_runs(host, name, patches, steps=1):
    """What a small model of a family makes of one start with each of some patches."""
    from families import FAMILIES, build, conditioning

    family = next(family for family in FAMILIES if family.name == name)
    model, start = build(family), torch.zeros(1, *family.latent)
    prompts = conditioning(family, seed=1), conditioning(family, seed=2)
    return [host.sample(p(model), *prompts, start, steps=steps, cfg=3.0, scheduler="simple") for p in patches]


def test_blocks_of_a_transformer_have_one_number(host, advanced):
    def chosen(blocks):
        return lambda model: advanced(model, attention_blocks=blocks)

    auto, middle_third, first = family_runs(host, "Flux.1 dev", [chosen("auto"), chosen("2-3"), chosen("0")])
    assert torch.equal(auto, middle_third)
    assert relative_error(first, auto) > CLOSE
    with pytest.raises(ValueError, match="'6', which this model lacks; it has 0-5"):
        family_runs(host, "Flux.1 dev", [chosen("2-6")])


@pytest.mark.parametrize(
    "how",
    [
        {"mask_mode": "token_rank"},
        {"mask_mode": "soft_self_attention", "mask_upsampling": "bilinear", "mask_feather": 1.0},
        {"mask_mode": "global_blur", "rescale": 0.7, "rescale_mode": "partial"},
        {"mask_mode": "high_frequency", "projection": True},
        {"mask_mode": "random", "apply_every": 2, "reuse": True},
        {"mask": torch.ones(40, 30), "branch": "conditional"},
    ],
    ids=str,
)
def test_every_mode_guides_a_video(host, advanced, how):
    ours, plain = family_runs(
        host, "Wan 2.1 text to video", [lambda model: advanced(model, **how), lambda model: model], steps=2
    )
    assert ours.isfinite().all() and relative_error(ours, plain) > CLOSE


# Where in the image


def test_a_full_mask_is_none_and_an_empty_one_guides_nothing(host, advanced, model):
    guided = sample(host, advanced(model))
    assert relative_error(sample(host, advanced(model, mask=torch.ones(1, 64, 64))), guided) < CLOSE
    assert torch.equal(sample(host, advanced(model, mask=torch.zeros(30, 50))), sample(host, model))


@pytest.mark.parametrize("size", [(12, 16), (96, 128), (7, 9), (5, 100), (1, 2)], ids=str)
def test_a_mask_of_any_size_guides_its_part(host, advanced, model, size):
    mask = torch.zeros(size)
    mask[:, : max(1, size[1] // 2)] = 1
    plain, ours = sample(host, model, steps=1), sample(host, advanced(model, mask=mask), steps=1)
    assert relative_error(ours[..., :6], plain[..., :6]) > 1e-4
    assert torch.equal(ours[..., 13:], plain[..., 13:])


@pytest.mark.parametrize("mode", ["full", "partial", "norm_clamp"])
def test_outside_the_mask_nothing_is_held_back_either(host, advanced, model, mode):
    """The mask comes last: inside it is what rescale makes of the whole image, outside not a bit has changed."""
    mask, rescaled = torch.zeros(12, 16), {"rescale": 0.8, "rescale_mode": mode, "scale": 3.0}
    mask[:, :8] = 1
    plain, whole, part = (
        sample(host, one, steps=1)
        for one in (model, advanced(model, **rescaled), advanced(model, mask=mask, **rescaled))
    )
    assert torch.equal(part[..., :8], whole[..., :8]) and torch.equal(part[..., 8:], plain[..., 8:])
    assert not torch.equal(whole[..., 8:], plain[..., 8:])


@pytest.mark.parametrize("mode", ["full", "partial"])
def test_rescale_compares_with_the_prompts_own_prediction(host, advanced, model, mode):
    def after_guidance(patched):
        patched, seen = patched.clone(), {}
        patched.set_model_sampler_post_cfg_function(lambda args: seen.update(args) or args["denoised"])
        sample(host, patched, steps=1)
        return seen["denoised"], seen["cond_denoised"]

    (plain, cond), (guided, _) = after_guidance(model), after_guidance(advanced(model, scale=3.0))
    ours, _ = after_guidance(advanced(model, scale=3.0, rescale=0.7, rescale_mode=mode))
    guidance = guided - plain
    held = cond.std() / (guided if mode == "full" else cond + guidance).std()
    assert relative_error(ours - plain, (0.7 * held + 0.3) * guidance) < CLOSE


def test_masks_of_a_batch_repeat_in_turn(host, advanced, model):
    masks = torch.stack([torch.ones(12, 16), torch.zeros(12, 16)])
    plain, ours = sample(host, model, batch=3, steps=1), sample(host, advanced(model, mask=masks), batch=3, steps=1)
    changed = [not torch.equal(a, b) for a, b in zip(ours, plain)]
    assert changed == [True, False, True]


def test_a_mask_with_nan_or_beyond_1_stays_a_mask(host, advanced, model):
    wild = torch.full((12, 16), 5.0)
    wild[:, 8:] = float("nan")
    tame = torch.ones(12, 16)
    tame[:, 8:] = 0
    assert torch.equal(*(sample(host, advanced(model, mask=mask)) for mask in (wild, tame)))


@pytest.mark.parametrize("mask", [torch.ones(5), torch.ones(2, 3, 4, 4), torch.ones(0, 4, 4), "mask"], ids=str)
def test_what_is_no_mask_is_named_before_sampling(advanced, model, mask):
    with pytest.raises(ValueError, match="mask must be a MASK of shape"):
        advanced(model, mask=mask)


# Bad input


@pytest.mark.parametrize("name", ["scale", "blur_sigma", "mask_threshold", "start_percent", "end_percent", "rescale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -99.0])
def test_numbers_that_are_none_are_named_before_sampling(advanced, model, name, value):
    with pytest.raises(ValueError, match=f"{name} must"):
        advanced(model, **{name: value})


def test_modes_without_attention_need_none(host, advanced, caplog):
    """A model without any attention cannot be guided by it, but by the blur of everything."""
    bare = host.unet(depth=(0, 0), depth_middle=-1)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(sample(host, advanced(bare)), sample(host, bare))
    assert "this model has no self-attention" in caplog.text
    for mode in ("global_blur", "high_frequency"):
        assert relative_error(sample(host, advanced(bare, mask_mode=mode)), sample(host, bare)) > CLOSE
