"""What the adapter must do on any host: these tests run against the real ComfyUI and against the stand-in.

They ask for two fixtures: `host` builds models and samples with them, `guide(model, scale=, blur_sigma=)` is the node.
"""

import gc
import sys
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from reference import guide_by_reference, relative_error
from torch.utils._python_dispatch import TorchDispatchMode

ONE_STEP, WHOLE_RUN = 1e-5, 1e-4


def latent(*size, batch=1, channels=4):
    return torch.zeros(batch, channels, *size)


def prompts(host, **positive):
    return host.conditioning(seed=1, **positive), host.conditioning(seed=2)


def watched(model, seen):
    """A clone of the model that notes cond_or_uncond and the batch size of every model call."""
    model = model.clone()

    def wrapper(apply_model, args):
        seen.append((list(args["cond_or_uncond"]), args["input"].shape[0]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(wrapper)
    return model


def assert_guided_like_the_reference(host, guide, model, positive, negative, size, steps=2, **how):
    batch = how.pop("batch", 1)
    start = how.pop("start", latent(*size, batch=batch))
    plain = host.sample(model, positive, negative, start, steps=steps, **how)
    ours = host.sample(guide(model), positive, negative, start, steps=steps, **how)
    expected = host.sample(guide_by_reference(model), positive, negative, start, steps=steps, **how)
    assert relative_error(expected, plain) > 1e-3, "the reference changes nothing: the case proves nothing"
    assert relative_error(ours, expected) < (ONE_STEP if steps == 1 else WHOLE_RUN)


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("cfg", [7.0, 1.0])
def test_equals_the_reference(host, guide, steps, cfg):
    assert_guided_like_the_reference(host, guide, host.unet(), *prompts(host), (16, 24), steps, cfg=cfg)


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_equals_the_reference_for_other_predictions(host, guide, prediction):
    assert_guided_like_the_reference(
        host, guide, host.unet(prediction=prediction), *prompts(host), (12, 16), 2, cfg=5.0, scheduler="simple"
    )


def test_without_a_negative_the_conditional_branch_is_guided(host, guide):
    positive, _ = prompts(host)
    assert_guided_like_the_reference(host, guide, host.unet(), positive, None, (16, 16), guider="basic")


@pytest.mark.parametrize("steps", [1, 3])
def test_batches_are_guided_sample_by_sample(host, guide, steps):
    assert_guided_like_the_reference(host, guide, host.unet(), *prompts(host), (12, 16), steps, batch=3)


@pytest.mark.parametrize("cfg, guider", [(7.0, "cfg"), (1.0, "cfg"), (1.0, "basic")])
def test_costs_one_evaluation_of_one_branch_a_step(host, guide, cfg, guider):
    positive, negative = prompts(host)
    seen_plain, seen = [], []
    for model, notes in ((host.unet(), seen_plain), (guide(host.unet()), seen)):
        host.sample(watched(model, notes), positive, negative, latent(8, 8), cfg=cfg, guider=guider, steps=3)
    rows = [sum(batch for _, batch in notes) for notes in (seen_plain, seen)]
    assert rows == ([6, 9] if cfg == 7.0 else [3, 6])
    # The re-run looks like the branch it re-runs: 1 is the negative, 0 the positive.
    assert seen[1] == (([1] if cfg == 7.0 else [0]), 1)


@pytest.mark.parametrize("cfg, place", [(7.0, 1), (1.0, 0)])
def test_only_the_guided_branch_is_recorded_and_nothing_of_the_re_run(host, guide, cfg, place):
    """The attention of the other branch, and of an answer to the blur, costs time and is never used."""
    model, recorded, read = guide(host.unet()), [], []

    def wrapper(apply_model, args):
        options = args["c"]["transformer_options"]
        recorded.append(options.get("self_attention_guidance_evaluation") is not None)
        return apply_model(args["input"], args["timestep"], **args["c"])

    def post_cfg(args):
        evaluation = args["model_options"]["transformer_options"]["self_attention_guidance_evaluation"]
        read.append([entry.place for entry, *_ in evaluation.find(args["input"]).maps])
        return args["denoised"]

    model.set_model_unet_function_wrapper(wrapper)
    model.set_model_sampler_post_cfg_function(post_cfg)
    host.sample(model, *prompts(host), latent(8, 8), cfg=cfg, steps=2)
    assert recorded == [True, False] * 2
    assert read == [[place]] * 2


@pytest.mark.parametrize(
    "tokens, memory, calls",
    [
        ((8, 8), None, [[1, 0], [1]]),
        ((8, 16), None, [[1, 0], [1]]),  # the shorter prompt is repeated
        ((3, 40), None, [[0], [1], [1]]),  # no common multiple that is near
        ((8, 8), 2**20, [[1], [0], [1]]),
        ((8, 16), 2**20, [[1], [0], [1]]),
    ],
    ids=str,
)
def test_one_batch_or_separate_calls_and_any_token_counts(host, guide, tokens, memory, calls):
    positive = host.conditioning(seed=1, tokens=tokens[0])
    negative = host.conditioning(seed=2, tokens=tokens[1])
    model, seen = host.unet(), []
    expected = host.sample(guide_by_reference(model), positive, negative, latent(12, 16), steps=1)
    with nullcontext() if memory is None else host.free_memory(memory):
        ours = host.sample(watched(guide(model), seen), positive, negative, latent(12, 16), steps=1)
    assert [branches for branches, _ in seen] == calls
    assert relative_error(ours, expected) < ONE_STEP


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (2, 1), (3, 3), (1, 64), (64, 2), (5, 7), (14, 22), (33, 47), (9, 50), (17, 17)], ids=str
)
def test_every_latent_size(host, guide, size):
    levels = {"channel_mult": (1, 1, 1, 1), "depth": (0, 0, 0, 1)} if max(size) > 20 else {}
    model = host.unet(channels=64, **levels)  # hosts cannot normalise a single pixel of 32 channels
    positive, negative = prompts(host)
    ours = host.sample(guide(model), positive, negative, latent(*size))
    expected = host.sample(guide_by_reference(model), positive, negative, latent(*size))
    assert ours.isfinite().all()
    assert relative_error(ours, expected) < WHOLE_RUN


def test_as_many_text_tokens_as_image_tokens(host, guide):
    """7 x 11 tokens and 77 words: the self-attention cannot be told by its token count."""
    model = host.unet()
    positive, negative = (host.conditioning(seed=seed, tokens=77) for seed in (1, 2))
    assert_guided_like_the_reference(host, guide, model, positive, negative, (14, 22))


@pytest.mark.parametrize("neutral", [{"scale": 0.0}, {"blur_sigma": 0.0}])
def test_a_scale_or_a_blur_of_zero_is_bit_identical_and_patches_nothing(host, guide, neutral):
    model = host.unet()
    positive, negative = prompts(host)
    off = guide(model, **neutral)
    assert torch.equal(
        host.sample(off, positive, negative, latent(12, 16)), host.sample(model, positive, negative, latent(12, 16))
    )
    assert off.model_options == model.model_options and off is not model


def test_the_given_model_stays_unguided(host, guide):
    model = host.unet()
    positive, negative = prompts(host)
    before = host.sample(model, positive, negative, latent(12, 16))
    host.sample(guide(model), positive, negative, latent(12, 16))
    assert torch.equal(host.sample(model, positive, negative, latent(12, 16)), before)


def test_the_same_run_twice_gives_identical_bytes_also_after_another_size(host, guide):
    guided = guide(host.unet())
    positive, negative = prompts(host)
    first = host.sample(guided, positive, negative, latent(12, 16))
    host.sample(guided, positive, negative, latent(16, 8, batch=2))
    assert torch.equal(host.sample(guided, positive, negative, latent(12, 16)), first)


def test_a_later_clone_is_guided_too(host, guide):
    """ComfyUI 0.3.64 copies model options deeply at every clone: shared state would part ways."""
    guided = guide(host.unet())
    positive, negative = prompts(host)
    expected = host.sample(guided, positive, negative, latent(12, 16))
    assert torch.equal(host.sample(guided.clone().clone(), positive, negative, latent(12, 16)), expected)


def test_two_nodes_add_up(host, guide):
    """One step, one mask: the terms of 0.5 and 0.25 are the term of 0.75."""
    model = host.unet()
    positive, negative = prompts(host)
    once = host.sample(guide(model, scale=0.75), positive, negative, latent(12, 16), steps=1)
    twice = host.sample(guide(guide(model, scale=0.5), scale=0.25), positive, negative, latent(12, 16), steps=1)
    assert relative_error(twice, once) < ONE_STEP


@pytest.mark.parametrize(
    "negatives",
    {
        "two negatives": [{}, {}],
        "strengths": [{"strength": 0.3}, {"strength": 1.7}],
        "areas": [{"area": (8, 10, 0, 0)}, {"area": (8, 14, 8, 10), "strength": 0.5}],
        "area with uncovered rest": [{"area": (8, 8, 4, 8)}],
        "an area over a whole": [{}, {"area": (6, 8, 2, 3), "strength": 2.0}],
        "mask": [{"mask": "left", "mask_strength": 0.7}, {"mask": "top"}],
        "timestep range": [{"timestep": (0.0, 0.5)}, {}],
        "nothing at late steps": [{"timestep": (0.0, 0.3)}],
    }.items(),
    ids=lambda case: case[0],
)
def test_several_entries_with_areas_masks_strengths_and_ranges(host, guide, negatives):
    positive, negative = host.conditioning(seed=1), []
    for seed, extras in enumerate(negatives[1]):
        extras = dict(extras)
        mask = torch.zeros(1, 16, 24)
        if extras.get("mask") == "left":
            mask[..., :12] = 1
        elif extras.get("mask") == "top":
            mask[:, :9] = 0.5
        if "mask" in extras:
            extras["mask"] = mask
        if "timestep" in extras:
            extras["start_percent"], extras["end_percent"] = extras.pop("timestep")
        negative += host.conditioning(seed=10 + seed, **extras)
    assert_guided_like_the_reference(host, guide, host.unet(), positive, negative, (16, 24), 2, cfg=2.0)


@pytest.mark.parametrize("replaced_first", [True, False])
@pytest.mark.parametrize("key", [("middle", 0), ("middle", 0, 0)])
def test_a_replaced_attention_on_the_very_block_keeps_its_effect_and_is_recorded(host, guide, replaced_first, key):
    def replacement(q, k, v, extra_options):
        calls.append(extra_options["cond_or_uncond"])
        return 0.5 * v

    calls = []
    positive, negative = prompts(host)
    plain = host.unet()
    replaced = plain.clone()
    replaced.set_model_attn1_replace(replacement, *key)
    if replaced_first:
        ours = guide(replaced)
    else:
        ours = guide(plain)
        ours.set_model_attn1_replace(replacement, *key)
    got = host.sample(ours, positive, negative, latent(12, 16))
    assert calls == [[1, 0], [1]] * 2
    expected = host.sample(guide_by_reference(replaced), positive, negative, latent(12, 16))
    assert relative_error(got, expected) < WHOLE_RUN


@pytest.mark.parametrize("override_first", [True, False])
def test_an_attention_backend_stays_in_force_everywhere(host, guide, override_first):
    def backend(attention, q, k, v, heads, *args, **kwargs):
        calls.append(kwargs["transformer_options"]["block"])
        return 0.9 * attention(q, k, v, heads, *args, **kwargs)

    calls = []
    positive, negative = prompts(host)
    model = host.unet()
    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = backend
    if override_first:
        ours = guide(other)
    else:
        ours = guide(model)
        ours.model_options["transformer_options"]["optimized_attention_override"] = backend
    got = host.sample(ours, positive, negative, latent(12, 16), steps=1)
    assert calls.count(("middle", 0)) == 4  # self- and cross-attention, in the main pass and in the re-run
    expected = host.sample(guide_by_reference(other), positive, negative, latent(12, 16), steps=1)
    assert relative_error(got, expected) < ONE_STEP


def test_a_perturbing_node_keeps_its_effect_next_to_guidance(host, guide):
    """The host's own SAG node silently switches off nodes that perturb the middle attention."""
    positive, negative = prompts(host)

    def term(model, with_perturbation):
        return host.sample(with_perturbation(model), positive, negative, latent(12, 16), steps=1)

    model = host.unet()
    plain = host.sample(model, positive, negative, latent(12, 16), steps=1)
    alone = term(model, perturbed) - plain
    guided = host.sample(guide(model), positive, negative, latent(12, 16), steps=1)
    assert alone.norm() > 1e-3 * plain.norm()
    for both in (term(guide(model), perturbed), host.sample(guide(perturbed(model)), positive, negative,
                                                            latent(12, 16), steps=1)):  # fmt: skip
        assert relative_error(both - guided, alone) < WHOLE_RUN


def perturbed(model):
    """Perturbed-attention guidance as a node of another pack would do it."""
    import comfy.model_patcher
    import comfy.samplers

    model = model.clone()

    def post_cfg(args):
        options = comfy.model_patcher.set_model_options_patch_replace(
            args["model_options"].copy(), lambda q, k, v, extra_options, mask=None: v, "attn1", "middle", 0
        )
        (weak,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], options)
        return args["denoised"] + 3.0 * (args["cond_denoised"] - weak)

    model.set_model_sampler_post_cfg_function(post_cfg)
    return model


def test_without_attention_in_the_middle_the_nearest_block_is_used_and_said_once(host, guide, caplog):
    model = host.unet(depth_middle=-1)
    positive, negative = prompts(host)
    ours = host.sample(guide(model), positive, negative, latent(12, 16), steps=3)
    reference = guide_by_reference(model, block=lambda network: network.output_blocks[0][1].transformer_blocks[0])
    assert relative_error(ours, host.sample(reference, positive, negative, latent(12, 16), steps=3)) < WHOLE_RUN
    assert len(our_messages(caplog)) == 1 and "output.0" in our_messages(caplog)[0]


def test_a_model_of_an_unknown_kind_runs_on_unguided_with_one_warning(host, guide, caplog):
    model = host.unet()
    model.model.diffusion_model = StrangeNetwork()
    positive, negative = prompts(host)
    expected = host.sample(model, positive, negative, latent(12, 16))
    assert torch.equal(host.sample(guide(model), positive, negative, latent(12, 16)), expected)
    assert len(our_messages(caplog)) == 1 and "StrangeNetwork" in our_messages(caplog)[0]


def test_attention_that_cannot_be_read_leaves_the_image_unguided_with_one_warning(host, guide, caplog):
    """A patch that cuts queries and keys into tiles, in an order that nobody tells."""

    def tiles(n, context, value, extra_options):
        if extra_options["block"] == ("middle", 0):
            n, context, value = (
                None if x is None else x.reshape(x.shape[0] * 2, x.shape[1] // 2, x.shape[2])
                for x in (n, context, value)
            )
        return n, context, value

    def whole(n, extra_options):
        if extra_options["block"] == ("middle", 0):
            n = n.reshape(n.shape[0] // 2, n.shape[1] * 2, n.shape[2])
        return n

    model = host.unet().clone()
    model.set_model_attn1_patch(tiles)
    model.set_model_attn1_output_patch(whole)
    positive, negative = prompts(host)
    expected = host.sample(model, positive, negative, latent(12, 16), steps=3)
    assert torch.equal(host.sample(guide(model), positive, negative, latent(12, 16), steps=3), expected)
    assert len(our_messages(caplog)) == 1 and "not guided" in our_messages(caplog)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models(host, guide, dtype):
    model = host.unet(dtype=dtype)
    positive, negative = prompts(host)
    plain = host.sample(model, positive, negative, latent(12, 16))
    ours = host.sample(guide(model), positive, negative, latent(12, 16))
    assert ours.isfinite().all() and relative_error(ours, plain) > 1e-3
    exact = host.sample(host.unet(), positive, negative, latent(12, 16))
    guided_exact = host.sample(guide(host.unet()), positive, negative, latent(12, 16))
    assert relative_error(ours, guided_exact) < 2 * relative_error(plain, exact)


def test_a_run_that_fails_half_way_leaves_nothing_behind(host, guide):
    guided = guide(host.unet())
    positive, negative = prompts(host)
    expected = host.sample(guided, positive, negative, latent(12, 16), steps=3)
    failing = guided.clone()
    calls = []

    def interrupt(apply_model, args):
        calls.append(1)
        if len(calls) == 4:  # the re-run of the second step
            raise RuntimeError("interrupted")
        return apply_model(args["input"], args["timestep"], **args["c"])

    failing.set_model_unet_function_wrapper(interrupt)
    with pytest.raises(RuntimeError, match="interrupted"):
        host.sample(failing, positive, negative, latent(16, 8), steps=3)
    assert living_state() == []
    assert torch.equal(host.sample(guided, positive, negative, latent(12, 16), steps=3), expected)


def test_no_tensor_outlives_the_run(host, guide):
    guided, alive = guide(guide(host.unet())).clone(), []

    def wrapper(apply_model, args):
        alive.append(living_state())
        return apply_model(args["input"], args["timestep"], **args["c"])

    guided.set_model_unet_function_wrapper(wrapper)
    host.sample(guided, *prompts(host), latent(12, 16))
    assert all("Evaluation" in kinds for kinds in alive) and living_state() == []


def broken(model, value, sample=1):
    """A clone of the model whose re-runs answer a sample of the batch with a number that is none."""
    model = model.clone()

    def wrapper(apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"])
        if len(args["cond_or_uncond"]) == 1:
            out = out.clone()
            out[sample, 0, 0, 0] = value
        return out

    model.set_model_unet_function_wrapper(wrapper)
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_answer_that_is_not_finite_leaves_its_sample_unguided_and_is_said_once(host, guide, caplog, value):
    model, how = host.unet(), {"steps": 3}
    start = latent(8, 12, batch=2)
    plain, guided, ours = (
        host.sample(one, *prompts(host), start, **how) for one in (model, guide(model), broken(guide(model), value))
    )
    assert torch.equal(ours[0], guided[0]) and torch.equal(ours[1], plain[1])
    assert not torch.equal(guided[1], plain[1])
    assert len(our_messages(caplog)) == 1 and "was not finite" in our_messages(caplog)[0]


class Waits(TorchDispatchMode):
    """Counts how often a number leaves its tensor, for which a GPU has to be waited for."""

    KINDS = (torch.ops.aten.item, torch.ops.aten.is_nonzero, torch.ops.aten._local_scalar_dense)

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in self.KINDS
        return func(*args, **(kwargs or {}))


def test_looking_for_numbers_that_are_none_waits_once_a_run(host, guide):
    model = guide(host.unet())
    patch = sys.modules[model.model_options["sampler_post_cfg_function"][0].__module__]
    run = sys.modules[f"{patch.__package__}.evaluation"].Run

    def waits(steps):
        with Waits() as mode:
            host.sample(model, *prompts(host), latent(8, 8), steps=steps)
        return mode.count

    def waits_without_looking(steps):
        looks = mock.patch.object(patch, "finite_samples", lambda term: (term, torch.ones(1, dtype=torch.bool)))
        with looks, mock.patch.object(run, "note_broken", lambda self, broken: None):
            return waits(steps)

    assert waits(4) > waits(1) > 0
    assert [waits(steps) - waits_without_looking(steps) for steps in (1, 4)] == [1, 1]


def test_inference_mode(host, guide):
    guided = guide(host.unet())
    positive, negative = prompts(host)
    expected = host.sample(guided, positive, negative, latent(12, 16))
    with torch.inference_mode():
        inside = host.sample(guided, positive, negative, latent(12, 16))
    assert torch.equal(inside.clone(), expected)


@pytest.mark.parametrize("wrong", [{"scale": float("nan")}, {"blur_sigma": float("inf")}, {"blur_sigma": -1.0}])
def test_bad_numbers_are_refused_before_anything_runs(host, guide, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        guide(host.unet(), **wrong)


@pytest.mark.parametrize("blur_sigma", [0.1, 10.0])
def test_the_ends_of_the_blur_are_finite(host, guide, blur_sigma):
    model = host.unet()
    positive, negative = prompts(host)
    ours = host.sample(guide(model, blur_sigma=blur_sigma), positive, negative, latent(12, 16))
    expected = host.sample(guide_by_reference(model, blur_sigma=blur_sigma), positive, negative, latent(12, 16))
    assert relative_error(ours, expected) < WHOLE_RUN


def test_inpainting_by_a_noise_mask_keeps_what_is_outside(host, guide):
    model = host.unet()
    positive, negative = prompts(host)
    start = torch.randn(1, 4, 12, 16, generator=torch.Generator().manual_seed(5))
    noise_mask = torch.zeros(1, 1, 12, 16)
    noise_mask[..., 8:] = 1
    how = {"noise_mask": noise_mask, "steps": 3}
    ours = host.sample(guide(model), positive, negative, start, **how)
    expected = host.sample(guide_by_reference(model), positive, negative, start, **how)
    assert relative_error(ours, expected) < WHOLE_RUN
    torch.testing.assert_close(ours[..., :8], start[..., :8], rtol=1e-3, atol=1e-3)


class StrangeNetwork(torch.nn.Module):
    dtype = torch.float32

    def forward(self, x, *args, **kwargs):
        return 0.5 * x


def our_messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "self-attention-guidance"]


def living_state():
    """Names of the recorder's objects that are still alive."""
    gc.collect()
    kinds = ("Evaluation", "Pass", "Recording", "AttentionMap", "Run")
    return [
        type(thing).__name__
        for thing in gc.get_objects()
        if type(thing).__name__ in kinds and ".nodes.adapter." in type(thing).__module__
    ]
