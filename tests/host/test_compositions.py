"""Guidance next to everything else that may stand in a graph, on real nodes of ComfyUI, in both orders."""

import threading
import uuid

import comfy.model_patcher
import comfy.samplers
import pytest
import torch
from contract import ONE_STEP, WHOLE_RUN, latent, our_messages, prompts
from graphs import GUIDERS, OTHERS, ControlNet, guider, node, sample_with
from reference import guide_by_reference, relative_error


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("sag_first", [True, False])
@pytest.mark.parametrize("cfg", [4.0, 1.0])
def test_other_nodes_in_both_orders(host, guide, name, sag_first, cfg):
    other, model = OTHERS[name], host.unet(channels=64)
    positive, negative = prompts(host)

    def run(guidance):
        patched = other(guidance(model)) if sag_first else guidance(other(model))
        return host.sample(patched, positive, negative, latent(16, 24), cfg=cfg)

    expected = run(guide_by_reference)
    assert relative_error(run(guide), expected) < WHOLE_RUN
    assert relative_error(expected, host.sample(other(model), positive, negative, latent(16, 24), cfg=cfg)) > 1e-4


def test_perturbed_attention_keeps_its_own_contribution(host, guide):
    """ComfyUI's own SAG node switches PAG off without a word, in either order."""
    model, pag = host.unet(), OTHERS["PAG"]
    positive, negative = prompts(host)

    def run(patched):
        return host.sample(patched, positive, negative, latent(16, 24), steps=1).double()

    plain, only_pag, only_sag = run(model), run(pag(model)), run(guide(model))
    for both in (run(pag(guide(model))), run(guide(pag(model)))):
        assert relative_error(both - only_sag, only_pag - plain) < 2e-5
        assert relative_error(both - only_pag, only_sag - plain) < 2e-5


def test_merged_tokens_off_the_middle(host, guide):
    """ToMe merges tokens that it draws at random: the draw is fixed here, so that both runs merge alike."""
    from unittest import mock

    def first(*args, size=None, **kwargs):
        return torch.zeros(size or args[-1], dtype=torch.int64)

    merging, model = node("nodes_tomesd", "TomePatchModel", 0.3), host.unet()
    positive, negative = prompts(host)
    with mock.patch("torch.randint", first):
        conditioned(host, guide, positive, negative, model=merging(model))
        one, other = (
            host.sample(patched, positive, negative, latent(16, 24))
            for patched in (merging(guide(model)), guide(merging(model)))
        )
    assert torch.equal(one, other)


@pytest.mark.parametrize("sag_first", [True, False])
def test_a_later_sampling_patch_changes_what_is_added_back(host, guide, sag_first):
    """Flow noising scales the image by 1 - sigma: the share comes from the model as it is patched when it runs."""
    flow, model = node("nodes_model_advanced", "ModelSamplingSD3", 3.0), host.unet()
    positive, negative = prompts(host)
    ours, expected = (
        host.sample(
            flow(guidance(model)) if sag_first else guidance(flow(model)),
            positive, negative, latent(12, 16), scheduler="simple", cfg=3.0,
        )
        for guidance in (guide, lambda model: guide_by_reference(model, flow=True))
    )  # fmt: skip
    assert relative_error(ours, expected) < WHOLE_RUN


# ---- guiders


@pytest.mark.parametrize("kind", GUIDERS)
def test_every_guider(host, guide, kind):
    model = host.unet()
    plain, ours, expected = (
        sample_with(guider(kind, patched, host)) for patched in (model, guide(model), guide_by_reference(model))
    )
    assert relative_error(expected, plain) > 1e-3
    assert relative_error(ours, expected) < WHOLE_RUN


def test_perp_neg_without_its_negative_is_cfg_with_the_empty_prompt(host, guide):
    model = guide(host.unet())
    ours = sample_with(guider("PerpNegGuider at 0", model, host))
    plain_cfg = comfy.samplers.CFGGuider(model)
    plain_cfg.set_conds(host.conditioning(seed=1), host.conditioning(seed=3))
    plain_cfg.set_cfg(4.0)
    assert relative_error(ours, sample_with(plain_cfg)) < WHOLE_RUN


def test_a_guider_with_a_second_model_re_runs_the_negative_on_that_model(host, guide):
    model = host.unet()
    chosen = guider("DualModelGuider", guide(model), host)
    plain = sample_with(guider("DualModelGuider", model, host), steps=1)
    calls = []
    for patcher in (chosen.model_patcher, chosen.uncond_model_patcher):
        real = patcher.model._apply_model
        patcher.model._apply_model = lambda *a, real=real, who=patcher, **k: calls.append(who) or real(*a, **k)
    try:
        ours = sample_with(chosen, steps=1)
    finally:
        for patcher in (chosen.model_patcher, chosen.uncond_model_patcher):
            del patcher.model._apply_model
    assert ours.isfinite().all() and relative_error(ours, plain) > 1e-3
    main, second = chosen.model_patcher, chosen.uncond_model_patcher
    assert calls == [main, second, second]


def test_a_guider_whose_second_model_alone_is_guided_says_so(host, guide, caplog):
    """The first model's options lead the run: guidance of the second would be lost without a word."""
    model, second = host.unet(), host.unet(seed=9)

    def run(first, second):
        chosen = guider("DualModelGuider", first, host)
        chosen.uncond_model_patcher = second
        return sample_with(chosen)

    assert torch.equal(run(model, guide(second)), run(model, second))
    assert len(our_messages(caplog)) == 1 and "does not run the guided model as its own" in our_messages(caplog)[0]
    caplog.clear()
    run(model, guide(second))
    assert len(our_messages(caplog)) == 1  # once in every run
    caplog.clear()
    assert not torch.equal(run(guide(model), guide(second)), run(model, second))
    assert our_messages(caplog) == []


@pytest.mark.parametrize("sampler", ["euler_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp"])
def test_cfg_plus_plus_samplers(host, guide, sampler):
    model = host.unet()
    positive, negative = prompts(host)
    how = {"sampler": sampler, "cfg": 1.5, "steps": 3}
    ours = host.sample(guide(model), positive, negative, latent(12, 16), **how)
    expected = host.sample(guide_by_reference(model), positive, negative, latent(12, 16), **how)
    assert relative_error(ours, expected) < WHOLE_RUN


def test_cfg_override_to_1_switches_to_the_conditional_branch(host, guide):
    override = node("nodes_custom_sampler", "CFGOverride", 1.0, 0.0, 1.0)
    model = host.unet()
    positive, negative = prompts(host)
    ours = host.sample(guide(override(model)), positive, negative, latent(12, 16))
    expected = host.sample(guide(model), positive, negative, latent(12, 16), cfg=1.0)
    assert relative_error(ours, expected) < ONE_STEP


# ---- conditioning


def conditioned(host, guide, positive, negative, model=None, size=(16, 24), tolerance=WHOLE_RUN, **how):
    model = model or host.unet()
    how = {"cfg": 2.0, **how}
    plain, ours, expected = (
        host.sample(patched, positive, negative, latent(*size), **how)
        for patched in (model, guide(model), guide_by_reference(model))
    )
    assert relative_error(expected, plain) > 1e-3
    assert relative_error(ours, expected) < tolerance


def test_positive_areas_copied_to_the_negative_share_its_uuid(host, guide):
    positive = host.conditioning(seed=1, area=(8, 12, 0, 0)) + host.conditioning(seed=2, area=(8, 12, 8, 12))
    conditioned(host, guide, positive, host.conditioning(seed=3))
    conditioned(host, guide, positive + host.conditioning(seed=4), host.conditioning(seed=3), cfg=1.0)


def test_masks_with_set_area_to_bounds(host, guide):
    mask = torch.zeros(1, 16, 24)
    mask[:, 3:12, 5:17] = 1
    negative = host.conditioning(seed=3) + host.conditioning(seed=4, mask=mask, set_area_to_bounds=True)
    conditioned(host, guide, host.conditioning(seed=1), negative)


def test_areas_given_in_percent(host, guide):
    negative = host.conditioning(seed=3, area=("percentage", 0.5, 1.0, 0.0, 0.0)) + host.conditioning(seed=4)
    conditioned(host, guide, host.conditioning(seed=1), negative)


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_default_entries_fill_what_the_others_leave(host, guide, side):
    """The default entry weighs 1 minus the others, by the host's own rule."""
    mask = torch.zeros(1, 16, 24)
    mask[..., :10] = 0.8
    mixed = host.conditioning(seed=4, default=True) + host.conditioning(seed=3, mask=mask)
    other = host.conditioning(seed=1)
    model = host.unet()
    positive, negative, cfg = (mixed, other, 1.0) if side == "positive" else (other, mixed, 2.0)
    ours = host.sample(guide(model), positive, negative, latent(16, 24), cfg=cfg, steps=1)
    # The same weights said explicitly.
    rest = host.conditioning(seed=4, mask=1 - mask) + host.conditioning(seed=3, mask=mask)
    positive, negative = (rest, other) if side == "positive" else (other, rest)
    expected = host.sample(guide_by_reference(model), positive, negative, latent(16, 24), cfg=cfg, steps=1)
    assert relative_error(ours, expected) < ONE_STEP
    assert relative_error(expected, host.sample(model, positive, negative, latent(16, 24), cfg=cfg, steps=1)) > 1e-3


def test_lora_hooks_on_the_prompts(host, guide):
    import comfy.hooks

    model = host.unet()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    weight = model.model.state_dict()[key]
    delta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.2

    def hooked(seed):
        hook = comfy.hooks.WeightHook(strength_model=1.0)
        hook.weights, hook.weights_clip, hook.need_weight_init = {key: ("diff", (delta,))}, None, False
        group = comfy.hooks.HookGroup()
        group.add(hook)
        return host.conditioning(seed=seed, hooks=group)

    conditioned(host, guide, host.conditioning(seed=1), hooked(2))


def test_a_control_net_is_asked_in_the_re_run_too(host, guide):
    asked = []
    control = ControlNet(asked)
    positive, negative = (host.conditioning(seed=s, control=control) for s in (1, 2))
    conditioned(host, guide, positive, negative, steps=1, tolerance=ONE_STEP)
    assert asked.count(2) == 3  # the three runs' main passes; the rest are re-runs


def test_gligen_boxes_are_evaluated_apart_and_again_in_the_re_run(host, guide):
    class Boxes:
        class model:  # noqa: N801  (the host reads gligen[1].model)
            @staticmethod
            def set_position(shape, boxes, device):
                return lambda x, extra_options: x + 0.2

            @staticmethod
            def set_empty(shape, device):
                return lambda x, extra_options: x - 0.2

            def __init__(self):
                pass

        load_device = torch.device("cpu")

    negative = host.conditioning(seed=2)
    from unittest import mock

    def no_extra_models(conds, dtype):
        return [], 0

    with mock.patch("comfy.sampler_helpers.get_additional_models", no_extra_models):
        positive = host.conditioning(seed=1, gligen=("position", Boxes, []))
        negative = host.conditioning(seed=2, gligen=("empty", Boxes, []))
        conditioned(host, guide, positive, negative)


def test_unclip_image_embeddings(host, guide):
    from types import SimpleNamespace

    def looks_like(seed):
        embeds = torch.randn(1, 1, 1280, generator=torch.Generator().manual_seed(seed))
        image = {"clip_vision_output": SimpleNamespace(image_embeds=embeds), "strength": 1.0, "noise_augmentation": 0.1}
        return host.conditioning(seed=seed, unclip_conditioning=[image])

    conditioned(host, guide, looks_like(1), looks_like(2), model=host.unet(family="sdxl"))


def test_image_prompts_of_the_ip_adapter_kind_see_the_negative_as_the_negative(host, guide):
    """Such patches pick the image prompt by cond_or_uncond: a re-run that looked like the positive would get it."""
    model, seen = host.unet().clone(), []
    images = torch.randn(2, 1, 4, 16, generator=torch.Generator().manual_seed(8))

    def attn2(n, context, value, extra_options):
        seen.append(tuple(extra_options["cond_or_uncond"]))
        chosen = torch.cat([images[i] for i in extra_options["cond_or_uncond"]])
        extended = torch.cat([context, chosen.to(context)], dim=1)
        return n, extended, extended

    model.set_model_attn2_patch(attn2)
    positive, negative = prompts(host)
    conditioned(host, guide, positive, negative, model=model)
    assert set(seen) == {(1, 0), (1,)}


@pytest.mark.parametrize("branch, place", [("unconditional", 1), ("conditional", 0)])
def test_every_entry_is_read_under_its_own_attention_mask(host, advanced, branch, place):
    """Both branches share a batch, and each hides other tokens: what is hidden receives nothing."""
    model, hidden, maps = host.unet().clone(), {0: slice(0, 5), 1: slice(5, 12)}, []
    attn1 = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1
    real = attn1.forward

    def forward(x, transformer_options, **kwargs):
        sides = transformer_options["cond_or_uncond"]
        mask = x.new_zeros(len(sides), x.shape[0] // len(sides), x.shape[1], x.shape[1])
        for row, side in enumerate(sides):
            mask[row, ..., hidden[side]] = -torch.inf
        return real(x, transformer_options=transformer_options, mask=mask.flatten(0, 1), **kwargs)

    def post_cfg(args):
        evaluation = args["model_options"]["transformer_options"]["self_attention_guidance_evaluation"]
        maps.extend(evaluation.find(args["input"]).maps.values())
        return args["denoised"]

    attn1.forward = forward
    guided = advanced(model, branch=branch)
    guided.set_model_sampler_post_cfg_function(post_cfg)
    assert host.sample(guided, *prompts(host), latent(12, 16, batch=3), steps=1).isfinite().all()
    (recorded,) = maps
    nothing = torch.zeros(3, 48, dtype=torch.bool)
    nothing[:, hidden[place]] = True
    assert torch.equal(recorded.received == 0, nothing)


def test_inpainting_models_of_nine_channels(host, guide):
    model = host.unet(in_channels=9)
    noise = torch.Generator().manual_seed(4)
    image, mask = torch.randn(1, 4, 16, 24, generator=noise), torch.zeros(1, 1, 128, 192)
    mask[..., 64:] = 1
    extras = {"concat_latent_image": image, "concat_mask": mask}
    positive, negative = prompts(host, **extras)[0], host.conditioning(seed=2, **extras)
    conditioned(host, guide, positive, negative, model=model)


def test_differential_diffusion(host, guide):
    model = node("nodes_differential_diffusion", "DifferentialDiffusion")(host.unet())
    mask = torch.linspace(0, 1, 24).expand(1, 1, 16, 24)
    positive, negative = prompts(host)
    conditioned(host, guide, positive, negative, model=model, noise_mask=mask, steps=3)


def test_image_to_image_at_low_denoise(host, guide):
    conditioned(host, guide, *prompts(host), denoise=0.3, steps=3)


# ---- execution


@pytest.mark.parametrize("sag_first", [True, False])
def test_a_compiled_model_is_guided(host, guide, sag_first):
    import torch._dynamo

    if "runs_as_traced" not in torch._dynamo.list_backends(exclude_tags=()):
        torch._dynamo.register_backend(lambda graph, inputs: graph.forward, name="runs_as_traced")
    torch._dynamo.reset()
    compiled = node("nodes_torch_compile", "TorchCompileModel", "runs_as_traced")
    model = host.unet(channel_mult=(1,), depth=(0,))  # a small network: tracing takes long
    positive, negative = prompts(host)
    expected = host.sample(guide(model), positive, negative, latent(8, 8), steps=3)
    both = compiled(guide(model)) if sag_first else guide(compiled(model))
    assert relative_error(host.sample(both, positive, negative, latent(8, 8), steps=3), expected) < WHOLE_RUN
    torch._dynamo.reset()


@pytest.mark.parametrize("cache", ["EasyCache", "LazyCache"])
@pytest.mark.parametrize("sag_first", [True, False])
def test_step_caches(host, guide, caplog, cache, sag_first):
    """The re-run may not feed the cache, and a step whose model call was skipped comes out unguided.

    EasyCache skips inside the network, so guidance has to say so; LazyCache skips the whole step, guidance included.
    """
    name = f"{cache}Node"
    model = host.unet()
    with torch.no_grad():
        model.model.diffusion_model.out[-1].weight.mul_(0.05)  # slow enough changes to be worth caching
    positive, negative = prompts(host)
    for threshold in (0.0, 3.0):
        caching = node("nodes_easycache", name, threshold, 0.0, 1.0, False)
        how = {"steps": 8, "cfg": 3.0}
        both = caching(guide(model)) if sag_first else guide(caching(model))
        ours = host.sample(both, positive, negative, latent(16, 16), **how)
        assert ours.isfinite().all()
        if threshold == 0.0:  # nothing is skipped: as without the cache
            expected = host.sample(guide(model), positive, negative, latent(16, 16), **how)
            assert relative_error(ours, expected) < WHOLE_RUN
            assert our_messages(caplog) == []
    messages = our_messages(caplog)
    assert len(messages) == (cache == "EasyCache") and all("was not called" in message for message in messages)


def test_a_step_that_a_cache_answers_for_is_not_guided_without_attention_either(host, advanced, caplog):
    model, caching = host.unet(), node("nodes_easycache", "EasyCacheNode", 3.0, 0.0, 1.0, False)
    with torch.no_grad():
        model.model.diffusion_model.out[-1].weight.mul_(0.05)
    both = advanced(caching(model), mask_mode="global_blur")
    assert host.sample(both, *prompts(host), latent(16, 16), steps=6, cfg=3.0).isfinite().all()
    messages = our_messages(caplog)
    assert len(messages) == 1 and "another node answered in its stead" in messages[0]


def test_two_devices_may_record_at_once(host, guide):
    """Hosts with several devices evaluate conditionings in worker threads."""
    model = guide(host.unet())
    positive, negative = prompts(host)
    expected = host.sample(model, positive, negative, latent(12, 16))
    threaded = model.clone()

    def in_threads(args):
        results = {}

        def work(place):
            conds = [None] * len(args["conds"])
            conds[place] = args["conds"][place]
            with torch.no_grad():
                results[place] = comfy.samplers.calc_cond_batch(
                    args["model"], conds, args["input"], args["sigma"], args["model_options"]
                )[place]

        workers = [threading.Thread(target=work, args=(i,)) for i, cond in enumerate(args["conds"]) if cond is not None]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return [results.get(i, torch.zeros_like(args["input"])) for i in range(len(args["conds"]))]

    threaded.model_options["sampler_calc_cond_batch_function"] = in_threads
    assert relative_error(host.sample(threaded, positive, negative, latent(12, 16)), expected) < WHOLE_RUN


def test_a_caller_that_cuts_the_latent_into_tiles_leaves_the_steps_unguided_with_one_warning(host, guide, caplog):
    model = host.unet().clone()

    def tiles(apply_model, args):
        halves = [args["input"][..., :8], args["input"][..., 8:]]
        return torch.cat([apply_model(half, args["timestep"], **args["c"]) for half in halves], dim=-1)

    model.set_model_unet_function_wrapper(tiles)
    positive, negative = prompts(host)
    plain = host.sample(model, positive, negative, latent(12, 16), steps=3)
    assert torch.equal(host.sample(guide(model), positive, negative, latent(12, 16), steps=3), plain)
    assert len(our_messages(caplog)) == 1 and "parts of the latent" in our_messages(caplog)[0]


def test_unloading_the_model_between_steps(host, guide):
    import comfy.model_management

    guided = guide(host.unet())
    positive, negative = prompts(host)
    expected = host.sample(guided, positive, negative, latent(12, 16))
    unloading = guided.clone()

    def wrapper(apply_model, args):
        comfy.model_management.free_memory(1e30, torch.device("cpu"))
        comfy.model_management.soft_empty_cache()
        return apply_model(args["input"], args["timestep"], **args["c"])

    unloading.set_model_unet_function_wrapper(wrapper)
    assert relative_error(host.sample(unloading, positive, negative, latent(12, 16)), expected) < ONE_STEP


@pytest.mark.parametrize("sag_first", [True, False])
def test_a_node_that_evaluates_the_branches_its_own_way_is_asked_for_the_re_run(host, guide, sag_first):
    """Skip-layer guidance in its simple form replaces how the branches are evaluated."""

    def own_way(model):
        model = model.clone()

        def function(args):
            asked.append([cond is not None for cond in args["conds"]])
            out = comfy.samplers.calc_cond_batch(
                args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
            )
            return [out[0], 0.9 * out[1]]

        model.set_model_sampler_calc_cond_batch_function(function)
        return model

    asked, model = [], host.unet()
    positive, negative = prompts(host)
    both = own_way(guide(model)) if sag_first else guide(own_way(model))
    ours = host.sample(both, positive, negative, latent(12, 16), steps=1)
    assert asked == [[True, True], [False, True]] and ours.isfinite().all()


@pytest.mark.parametrize("slg", ["SkipLayerGuidanceDiT", "SkipLayerGuidanceDiTSimple"])
def test_skipped_layers_of_a_transformer(host, guide, slg):
    from families import FAMILIES, build, conditioning

    family = next(family for family in FAMILIES if family.config == "SD3")
    model = build(family)
    scale = {"scale": 3.0} if slg == "SkipLayerGuidanceDiT" else {}
    skipping = node("nodes_slg", slg, start_percent=0.0, end_percent=1.0, double_layers="0", single_layers="", **scale)
    start = torch.zeros(1, *family.latent)
    positive, negative = conditioning(family, seed=1), conditioning(family, seed=2)

    def run(patched):
        return host.sample(patched, positive, negative, start, steps=1, cfg=3.0, scheduler="simple").double()

    plain, only_slg, only_sag = run(model), run(skipping(model)), run(guide(model))
    for both in (run(skipping(guide(model))), run(guide(skipping(model)))):
        assert relative_error(both, only_slg) > 1e-4 and relative_error(both, only_sag) > 1e-4
        if slg == "SkipLayerGuidanceDiT":
            assert relative_error(both - only_sag, only_slg - plain) < 2e-5


def test_two_samplers_share_one_patched_model(host, guide):
    guided = guide(host.unet())
    positive, negative = prompts(host)
    alone = [host.sample(guided, positive, negative, latent(12, 16), seed=seed) for seed in (1, 2)]
    assert torch.equal(host.sample(guided, positive, negative, latent(12, 16), seed=1), alone[0])
    assert torch.equal(
        host.sample(guided, negative, positive, latent(8, 8), seed=2).isfinite().all(), torch.tensor(True)
    )
    assert torch.equal(host.sample(guided, positive, negative, latent(12, 16), seed=2), alone[1])


def test_the_re_run_has_stable_names_of_its_own(host, guide):
    model, names = guide(host.unet()), []

    def wrapper(apply_model, args):
        names.append([str(name) for name in args["c"]["transformer_options"]["uuids"]])
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(wrapper)
    host.sample(model, *prompts(host), latent(8, 8), steps=2)
    main, again, main_2, again_2 = names
    assert main == main_2 and again == again_2
    assert not set(main) & set(again) and uuid.UUID(again[0])
