"""Guidance answers for the blur and for nothing else: with a blur that degrades nothing, the run is the run without it.

The blur is so narrow that its kernel is a single 1. The model is then asked again at the very latent for which it has
answered, must answer the same, and guidance is 0: next to any node, at any CFG, on any model. What is left over is
guidance that nobody asked for.
"""

from contextlib import contextmanager
from functools import cache
from unittest import mock

import comfy.hooks
import comfy.model_base
import comfy.samplers
import pytest
import torch
from contract import latent, our_messages
from families import FAMILIES, available, build, conditioning
from graphs import GUIDERS, OTHERS, ControlNet, guider, node, sample_with, windows
from outcomes import outcome
from reference import relative_error

from real_host import RealHost  # isort: skip

NOTHING, SOMETHING = 1e-4, 2.0  # blur_sigma
EXACT = 1e-5
HOST = RealHost()
unet = cache(HOST.unet)


@contextmanager
def counted():
    """A list of one number: the rows of all batches that models are asked about."""
    real, rows = comfy.model_base.BaseModel._apply_model, [0]

    def apply_model(self, x, *args, **kwargs):
        rows[0] += x.shape[0]
        return real(self, x, *args, **kwargs)

    with mock.patch.object(comfy.model_base.BaseModel, "_apply_model", apply_model):
        yield rows


@pytest.fixture
def null_test(caplog):
    """What a run with each of some guided models must be: `plain`, but for what the blur does."""

    def check(sample, plain, guided, exact=EXACT, says=()):
        """
        Args:
            sample: a model to its image.
            guided: blur_sigma to the guided models, of which all must be `plain` where nothing is blurred.
            says: parts of the messages that are due.
        """
        with counted() as rows:
            expected = sample(plain)
        assert expected.isfinite().all()
        for model in guided(NOTHING):
            with counted() as asked:
                ours = sample(model)
            assert asked > rows, "the model was not asked about the blur"
            assert relative_error(ours, expected) <= exact
        messages = list(dict.fromkeys(our_messages(caplog)))
        assert len(messages) == len(says) and all(part in message for part, message in zip(says, messages)), messages
        assert relative_error(sample(guided(SOMETHING)[0]), expected) > 1e-3

    return check


def beside(guide, other, model, **settings):
    """Guidance and another node in both orders, as `null_test` wants them."""
    return lambda blur: (
        other(guide(model, blur_sigma=blur, **settings)),
        guide(other(model), blur_sigma=blur, **settings),
    )


def alone(guide, model, **settings):
    return lambda blur: (guide(model, blur_sigma=blur, **settings),)


def sampler(size=(8, 12), batch=1, positive=None, negative=None, **how):
    positive = HOST.conditioning(seed=1) if positive is None else positive
    negative = HOST.conditioning(seed=2) if negative is None else negative
    how = {"cfg": 3.0, **how}
    return lambda model: HOST.sample(model, positive, negative, latent(*size, batch=batch), **how)


def one_by_one(sample):
    """The same with every entry evaluated on its own: a batch of two rounds otherwise than the re-run's one."""

    def run(model):
        with HOST.free_memory(2**20):
            return sample(model)

    return run


# ---- other nodes on a UNet


def scaled_negative(args):
    return [args["conds_out"][0], 0.9 * args["conds_out"][1]]


def changed_in_place(args):
    for out, factor in zip(args["conds_out"], (1.1, 0.9)):
        out.mul_(factor)
    return args["conds_out"]


def another_list(args):
    args["conds_out"][0] = 1.1 * args["conds_out"][0]
    return args["conds_out"]


def pre_cfg(function):
    def other(model):
        model = model.clone()
        model.set_model_sampler_pre_cfg_function(function)
        return model

    return other


def post_cfg(function):
    def other(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(function)
        return model

    return other


def cfg_function(model):
    model = model.clone()
    model.set_model_sampler_cfg_function(lambda args: args["uncond"] + 2.0 * (args["cond"] - args["uncond"]))
    return model


def changes_predictions_in_place(args):
    for name, factor in (("denoised", 0.98), ("cond_denoised", 1.1), ("uncond_denoised", 0.9)):
        if args[name] is not None:
            args[name].mul_(factor)
    return args["denoised"]


def own_way(model):
    """Evaluates the branches in the host's stead, and makes something else of them."""

    def function(args):
        out = comfy.samplers.calc_cond_batch(
            args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
        )
        return [1.05 * out[0], 0.9 * out[1]]

    model = model.clone()
    model.set_model_sampler_calc_cond_batch_function(function)
    return model


BESIDE = {
    **OTHERS,
    "APG with momentum": node("nodes_apg", "APG", 1.5, 2.0, 0.7),
    "CFGOverride": node("nodes_custom_sampler", "CFGOverride", 1.0, 0.0, 1.0),
    "a scaled negative": pre_cfg(scaled_negative),
    "branches changed in place": pre_cfg(changed_in_place),
    "a branch exchanged in the list": pre_cfg(another_list),
    "predictions changed in place": post_cfg(changes_predictions_in_place),
    "its own CFG": cfg_function,
    "its own way of evaluating": own_way,
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("cfg", [3.0, 1.0])
def test_beside_every_other_node_in_both_orders(guide, null_test, name, cfg):
    model, other = unet(), BESIDE[name]
    null_test(sampler(cfg=cfg), other(model), beside(guide, other, model))


# ---- models


def family_sampler(family, frames=None, **how):
    positive, negative = conditioning(family, seed=1), conditioning(family, seed=2)
    size = family.latent if frames is None else (family.latent[0], frames, *family.latent[2:])
    start = torch.zeros(3 if family.name == "Stable Video Diffusion" else 1, *size)
    how = {"cfg": 3.0, "scheduler": "simple", **how}
    return lambda model: HOST.sample(model, positive, negative, start, **how)


FAMILIES_HERE = [family for family in FAMILIES if available(family)]


@pytest.mark.parametrize("family", FAMILIES_HERE, ids=lambda family: family.name)
@pytest.mark.parametrize("cfg", [3.0, 1.0])
def test_every_family(guide, null_test, family, cfg):
    if outcome(family.name, guide)[0] == "refused":
        pytest.skip(f"{family.name} is refused on this host")
    model = build(family)
    run = family_sampler(family, cfg=cfg)
    if family.name == "Stable Video Diffusion":  # a batch of six frames rounds otherwise than the re-run's three
        run = one_by_one(run)
    null_test(run, model, alone(guide, model))


NAG = OTHERS["NAG"]
SLG = {"start_percent": 0.0, "end_percent": 1.0, "double_layers": "0", "single_layers": ""}


@pytest.mark.parametrize(
    "name, other",
    {
        "NAG on Flux.1": ("Flux.1 dev", NAG),
        "NAG on Flux.2": ("Flux.2", NAG),
        "NAG on Chroma": ("Chroma", NAG),
        "NAG on HunyuanVideo": ("HunyuanVideo", NAG),
        "skip-layer guidance": ("Stable Diffusion 3", node("nodes_slg", "SkipLayerGuidanceDiT", scale=3.0, **SLG)),
        "simple skip-layer guidance": ("Stable Diffusion 3", node("nodes_slg", "SkipLayerGuidanceDiTSimple", **SLG)),
        "TCFG on a flow": ("Flux.1 dev", OTHERS["TCFG"]),
        "CFG-Zero* on a flow": ("Flux.1 dev", OTHERS["CFGZeroStar"]),
    }.items(),
    ids=lambda case: case[0] if isinstance(case, tuple) else case,
)
@pytest.mark.parametrize("cfg", [3.0, 1.0])
def test_other_nodes_on_transformers_in_both_orders(guide, null_test, name, other, cfg):
    name, other = other
    family = next((family for family in FAMILIES if family.name == name and available(family)), None)
    if family is None:
        pytest.skip(f"this host has no {name}")
    model = build(family)
    null_test(family_sampler(family, cfg=cfg), other(model), beside(guide, other, model))


@pytest.mark.parametrize("prediction", ["v", "flow", "edm"])
@pytest.mark.parametrize("cfg", [3.0, 1.0])
def test_every_prediction(guide, null_test, prediction, cfg):
    model = unet(prediction=prediction)
    null_test(one_by_one(sampler(cfg=cfg, scheduler="simple")), model, alone(guide, model), exact=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cfg", [3.0, 1.0])
def test_half_precision(guide, null_test, dtype, cfg):
    """A batch of two rounds otherwise than the re-run's one, by units in the last place, which each step adds to."""
    model = unet(dtype=dtype)
    null_test(sampler(cfg=cfg), model, alone(guide, model), exact=4 * torch.finfo(dtype).eps)
    null_test(one_by_one(sampler(cfg=cfg)), model, alone(guide, model), exact=0)


# ---- settings of the Advanced node


@pytest.mark.parametrize(
    "settings",
    [
        *({"mask_mode": mode} for mode in ("soft_self_attention", "token_rank", "global_blur", "random")),
        {"branch": "conditional"},
        {"branch": "unconditional"},
        {"apply_every": 2},
        {"apply_every": 2, "reuse": True},
        {"start_percent": 0.2, "end_percent": 0.8, "scale_curve": "bell"},
        {"mask_upsampling": "bilinear", "mask_feather": 1.5, "attention_blocks": "middle.0, output.1"},
        {"rescale": 0.7, "rescale_mode": "norm_clamp"},
        {"projection": True},
        {"mask": torch.eye(12)},
    ],
    ids=str,
)
def test_every_setting(advanced, null_test, settings):
    model = unet()
    null_test(sampler(steps=4), model, alone(advanced, model, **settings))


# The energy of what this blur removes is 0, and so is the mask: all the more nothing may happen.
def test_high_frequencies(advanced, null_test):
    model = unet()
    null_test(sampler(), model, alone(advanced, model, mask_mode="high_frequency"))


def test_two_nodes(guide, advanced, null_test):
    model = unet()

    def both(blur):
        return (guide(advanced(model, blur_sigma=blur, branch="conditional"), blur_sigma=blur),)

    null_test(sampler(), model, both)


# ---- conditioning


def entries(*extras):
    return [entry for seed, more in enumerate(extras) for entry in HOST.conditioning(seed=10 + seed, **more)]


def left_half(strength=1.0):
    mask = torch.zeros(1, 8, 12)
    mask[..., :6] = strength
    return mask


def lora_hook(model):
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    weight = model.model.state_dict()[key]
    hook = comfy.hooks.WeightHook(strength_model=1.0)
    delta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.2
    hook.weights, hook.weights_clip, hook.need_weight_init = {key: ("diff", (delta,))}, None, False
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return group


class Boxes:
    """What the host reads of a GLIGEN model."""

    load_device = torch.device("cpu")

    class model:  # noqa: N801
        @staticmethod
        def set_position(shape, boxes, device):
            return lambda x, extra_options: x + 0.2

        @staticmethod
        def set_empty(shape, device):
            return lambda x, extra_options: x - 0.2


SEVERAL = {
    "two prompts": [{}, {"strength": 0.4}],
    "areas": [{"area": (4, 6, 0, 0)}, {"area": (4, 8, 4, 4), "strength": 0.5}],
    "areas over a whole": [{}, {"area": (4, 6, 2, 3), "strength": 2.0}],
    "masks": [{"mask": left_half(0.7)}, {"mask": 1 - left_half(0.7)}],
    "a mask with its area": [{}, {"mask": left_half(), "set_area_to_bounds": True}],
    "default entries": [{"default": True}, {"mask": left_half(0.8)}],
    "timestep ranges": [{"start_percent": 0.0, "end_percent": 0.5}, {"start_percent": 0.3}, {"end_percent": 0.6}],
    "prompts of two lengths": [{"tokens": 5}, {"tokens": 8}],
    "ControlNet": [{"control": ControlNet()}],
    "ControlNet with a schedule": [{"control": ControlNet(strength=lambda sigma: 0.4 / (1 + sigma))}, {}],
    "LoRA hooks": [{"hooks": lora_hook(unet())}, {}],
    "GLIGEN": [{"gligen": ("position", Boxes, [])}],
}


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("side", ["positive", "negative", "both"])
def test_every_conditioning(guide, null_test, name, side):
    model, prompts = unet(), {"positive": entries({}), "negative": entries({})}
    for one in prompts if side == "both" else (side,):
        prompts[one] = entries(*SEVERAL[name])
    run = sampler(**prompts, cfg=1.0 if side == "positive" else 3.0)
    with mock.patch("comfy.sampler_helpers.get_additional_models", lambda conds, dtype: ([], 0)):
        null_test(run, model, alone(guide, model))


def test_batches_and_a_little_memory(guide, null_test):
    null_test(sampler(batch=3), unet(), alone(guide, unet()))
    null_test(one_by_one(sampler(batch=3)), unet(), alone(guide, unet()), exact=0)


def test_inpainting(guide, null_test):
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., 5:] = 1
    null_test(sampler(noise_mask=mask), unet(), alone(guide, unet()))


# ---- guiders and samplers


@pytest.mark.parametrize("kind", [*GUIDERS, "PerpNegGuider at 0", "DualModelGuider"])
def test_every_guider(host, guide, null_test, kind):
    null_test(lambda model: sample_with(guider(kind, model, host)), unet(), alone(guide, unet()))


@pytest.mark.parametrize(
    "name", ["euler_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp", "heun", "dpmpp_2s_ancestral", "uni_pc"]
)
def test_samplers_that_look_closer(guide, null_test, name):
    null_test(one_by_one(sampler(sampler=name, cfg=1.5)), unet(), alone(guide, unet()), exact=0)


# ---- execution


@pytest.mark.parametrize("cache_node", ["EasyCacheNode", "LazyCacheNode"])
@pytest.mark.parametrize("threshold", [0.0, 3.0])
def test_step_caches(guide, null_test, cache_node, threshold):
    """A step that EasyCache answers for is not guided, and that is said; LazyCache answers for guidance as well."""
    model, other = HOST.unet(), node("nodes_easycache", cache_node, threshold, 0.0, 1.0, False)
    with torch.no_grad():
        model.model.diffusion_model.out[-1].weight.mul_(0.05)  # slow enough changes to be worth caching
    says = ("was not seen",) if threshold and cache_node == "EasyCacheNode" else ()
    null_test(sampler(steps=6), other(model), beside(guide, other, model), says=says)


def test_a_compiled_model(guide, null_test):
    import torch._dynamo

    if "runs_as_traced" not in torch._dynamo.list_backends(exclude_tags=()):
        torch._dynamo.register_backend(lambda graph, inputs: graph.forward, name="runs_as_traced")
    torch._dynamo.reset()
    other = node("nodes_torch_compile", "TorchCompileModel", "runs_as_traced")
    model = unet(channel_mult=(1,), depth=(0,))
    null_test(sampler(), model, lambda blur: (guide(other(model), blur_sigma=blur),))
    torch._dynamo.reset()


WINDOWS = {
    **{
        f"{schedule}, {fuse}": windows(3, 1, schedule, fuse)
        for schedule, fuse in (
            ("standard_static", "flat"),
            ("standard_static", "pyramid"),
            ("standard_static", "relative"),
            ("standard_static", "overlap-linear"),
            ("standard_uniform", "relative"),
            ("looped_uniform", "flat"),
            ("batched", "flat"),
        )
    },
    "closed loop with a stride": windows(3, 1, "looped_uniform", "pyramid", loop=True, stride=2),
    "rows": windows(6, 2, dim=3),
    "columns": windows(8, 2, fuse="pyramid", dim=4),
    "a causal anchor": windows(3, 1, causal_window_fix=True),
    "a causal anchor, relative": windows(3, 1, "standard_uniform", "relative", causal_window_fix=True),
    "with the anchor as long as the whole": windows(6, 2, causal_window_fix=True),
    "FreeNoise": windows(3, 1, freenoise=True),
    "a retained first frame": windows(3, 1, latent_retain_index_list="0"),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("sag_first", [True, False])
def test_context_windows(guide, null_test, name, sag_first):
    family = next(family for family in FAMILIES if family.name == "Wan 2.1 text to video")
    model, other = build(family), WINDOWS[name]

    def guided(blur):
        return (other(guide(model, blur_sigma=blur)) if sag_first else guide(other(model), blur_sigma=blur),)

    null_test(family_sampler(family, frames=7, cfg=3.0 if sag_first else 1.0), other(model), guided)


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_context_windows_with_a_prompt_each(guide, null_test, side):
    family = next(family for family in FAMILIES if family.name == "Wan 2.1 text to video")
    model, other = build(family), windows(3, 1, split_conds_to_windows=True)
    prompts = {"positive": conditioning(family, seed=1), "negative": conditioning(family, seed=2)}
    prompts[side] = [entry for seed in (3, 4) for entry in conditioning(family, seed=seed)]
    start = torch.zeros(1, family.latent[0], 7, *family.latent[2:])

    def run(model):
        return HOST.sample(model, latent=start, scheduler="simple", cfg=1.0 if side == "positive" else 3.0, **prompts)

    null_test(run, other(model), beside(guide, other, model))
