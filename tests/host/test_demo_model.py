"""The demo model inside the real ComfyUI: whole, at home in every node, and the same as outside of it.

Nothing here depends on what the model draws, nor on its architecture.
"""

import importlib
from functools import partial
from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch
from contract import our_messages
from real_host import randomise

from demo.checkpoint import Architecture, Checkpoint, load, save

PROMPT, NEGATIVE = "a red mushroom", ""
OTHER = Architecture(size=24, channels=(32, 64), heads=2, token_width=16, beta_start=0.001, beta_end=0.01)
PARITY = 1e-3  # of pixels -1..1
CLEAR = 3e-5  # how far attention must stay from the mask's hard threshold for two engines to agree on the mask


@pytest.fixture(scope="module")
def demo_node(node_classes):
    return node_classes["SAGDemoModel"]


@pytest.fixture
def run_node(demo_node, monkeypatch):
    """The node as the host runs it; with `path`, on another file than the pack's."""
    module = importlib.import_module("...demo.checkpoint", demo_node.__module__)

    @torch.inference_mode()
    def run_node(prompt=PROMPT, negative_prompt=NEGATIVE, batch_size=1, path=None):
        with monkeypatch.context() as patch:
            if path is not None:
                patch.setattr(module, "load", partial(module.load, path))
            outputs = demo_node.execute(prompt=prompt, negative_prompt=negative_prompt, batch_size=batch_size).args
        return SimpleNamespace(**dict(zip(("model", "positive", "negative", "latent", "vae"), outputs)))

    return run_node


@pytest.fixture
def sample(host):
    def sample(demo, model=None, **how):
        how = {"cfg": 2.0, "steps": 2, "sampler": "ddim", "scheduler": "simple", **how}
        latent = how.pop("latent", demo.latent["samples"])
        return host.sample(model or demo.model, demo.positive, demo.negative, latent, **how)

    return sample


def with_node(model, module, name, *values):
    """The model behind one of the host's own nodes."""
    node = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
    run = getattr(node, "execute", None) or getattr(node(), node.FUNCTION)
    result = run(model, *values)
    return getattr(result, "args", result)[0]


def test_outputs_are_what_a_sampler_takes(run_node):
    demo, architecture = run_node(batch_size=3), load().architecture
    assert isinstance(demo.model, comfy.model_patcher.ModelPatcher) and isinstance(demo.vae, comfy.sd.VAE)
    assert demo.model.load_device == comfy.model_management.get_torch_device()
    assert demo.model.model.get_dtype() == torch.float32  # on the CPU, where these tests run
    assert demo.latent["samples"].shape == (3, 3, architecture.size, architecture.size)
    assert not demo.latent["samples"].any()
    for ((text, _),) in (demo.positive, demo.negative):
        assert text.shape == (1, 2, architecture.token_width)
    assert torch.equal(demo.negative[0][0], run_node("").positive[0][0])
    assert not torch.equal(demo.negative[0][0], demo.positive[0][0])


def test_every_weight_of_the_file_is_in_the_network(run_node):
    network, stored = run_node().model.model.diffusion_model, load()
    loaded = network.state_dict()
    assert len(loaded) == len(stored.unet)
    names = comfy.utils.unet_to_diffusers(run_node().model.model.model_config.unet_config)
    for name, weight in stored.unet.items():
        assert torch.equal(loaded[names[name]], weight), name


@pytest.mark.parametrize("damage", ["missing", "left over", "shape"])
def test_weights_of_another_network_are_refused(demo_node, damage):
    builder = importlib.import_module("...nodes.adapter.demo", demo_node.__module__)
    stored = load()
    weights, name = dict(stored.unet), "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    if damage == "missing":
        del weights[name]
    elif damage == "left over":
        weights["mid_block.attentions.7.weight"] = torch.zeros(1)
    else:
        weights[name] = weights[name][1:]
    expected = "mid_block.attentions.7.weight" if damage == "left over" else "attn1.to_q.weight"
    with pytest.raises(RuntimeError, match="do not fit the architecture") as error:
        builder.model_of(Checkpoint(stored.architecture, weights, stored.token_table, stored.trained_steps))
    assert expected in str(error.value)


def test_the_vae_changes_nothing_but_the_range(run_node):
    demo = run_node(batch_size=2)
    image = torch.rand(2, *demo.latent["samples"].shape[2:], 3, generator=torch.Generator().manual_seed(0))
    latent = demo.vae.encode(image)
    assert latent.shape == demo.latent["samples"].shape
    assert torch.allclose(latent.movedim(1, -1), image * 2 - 1, atol=1e-6)
    before = latent.clone()
    assert torch.allclose(demo.vae.decode(latent), image, atol=1e-6)
    assert torch.equal(latent, before)


def test_guidance_changes_the_picture_without_a_warning(run_node, sample, guide, advanced, caplog):
    demo = run_node(batch_size=2)
    for how in ({"cfg": 2.0}, {"cfg": 1.0}):
        plain = sample(demo, **how)
        guided = sample(demo, guide(demo.model), **how)
        assert plain.isfinite().all() and guided.isfinite().all()
        assert (plain - guided).abs().max() > 1e-3
        assert torch.equal(sample(demo, advanced(demo.model), **how), guided)
        assert torch.equal(sample(demo, **how), plain)
    assert not our_messages(caplog) and "WARNING" not in caplog.text


def test_the_negative_prompt_counts_above_cfg_1(run_node, sample):
    demo, other = run_node(), run_node(negative_prompt="blue")
    assert not torch.equal(sample(demo), sample(other))
    assert torch.equal(sample(demo, cfg=1.0), sample(other, cfg=1.0))


def test_every_sampler_and_every_scheduler(run_node, sample, guide):
    demo = run_node()
    guided = guide(demo.model)
    for sampler in comfy.samplers.KSampler.SAMPLERS:
        assert sample(demo, guided, sampler=sampler).isfinite().all(), sampler
    for scheduler in comfy.samplers.KSampler.SCHEDULERS:
        assert sample(demo, guided, scheduler=scheduler).isfinite().all(), scheduler


@pytest.mark.parametrize(
    "module, name, values",
    [
        ("nodes_sag", "SelfAttentionGuidance", (0.5, 2.0)),
        ("nodes_pag", "PerturbedAttentionGuidance", (3.0,)),
        ("nodes_freelunch", "FreeU_V2", (1.3, 1.4, 0.9, 0.2)),
        ("nodes_model_advanced", "RescaleCFG", (0.7,)),
        ("nodes_model_downscale", "PatchModelAddDownscale", (1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")),
        ("nodes_hypertile", "HyperTile", (64, 2, 0, False)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_hosts_own_patches(run_node, sample, guide, module, name, values):
    demo = run_node(batch_size=2)
    patched = with_node(demo.model, module, name, *values)
    assert sample(demo, patched).isfinite().all()
    assert sample(demo, guide(patched)).isfinite().all()


def test_image_to_image_and_other_sizes(run_node, sample, guide):
    demo = run_node()
    guided, size = guide(demo.model), demo.latent["samples"].shape[-1]
    grey, white = (demo.vae.encode(torch.full((2, size, size, 3), value)) for value in (0.5, 1.0))
    from_grey, from_white = (sample(demo, guided, latent=start, denoise=0.2, steps=5) for start in (grey, white))
    assert from_grey.shape == grey.shape and from_grey.isfinite().all()
    assert (from_white - from_grey).mean() > 0.1
    tall = torch.zeros(1, 3, 2 * size, size)
    assert sample(demo, guided, latent=tall).shape == tall.shape


def test_a_lora_in_diffusers_names(run_node, sample, guide):
    demo, name = run_node(), "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    width = demo.model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1.to_q.weight.shape[0]
    noise = torch.Generator().manual_seed(0)
    lora = {
        f"{name}.lora_up.weight": torch.randn(width, 2, generator=noise),
        f"{name}.lora_down.weight": torch.randn(2, width, generator=noise),
    }
    changed, _ = comfy.sd.load_lora_for_models(demo.model, None, lora, 1.0, 0.0)
    assert changed.patches
    assert (sample(demo, guide(changed)) - sample(demo, guide(demo.model))).abs().max() > 1e-3
    assert torch.equal(sample(demo), sample(run_node()))


def test_the_live_preview_shows_the_pixels(run_node, monkeypatch):
    import latent_preview

    demo = run_node()
    size = demo.latent["samples"].shape[-1]
    white = torch.ones_like(demo.latent["samples"])
    for method in latent_preview.LatentPreviewMethod:
        monkeypatch.setattr(latent_preview.args, "preview_method", method)
        latent_preview.prepare_callback(demo.model, 2)(0, white, white, 2)
    previewer = latent_preview.get_previewer(demo.model.load_device, demo.model.model.latent_format)
    _, picture, _ = previewer.decode_latent_to_preview_image("JPEG", white)
    assert picture.size == (size, size) and picture.getpixel((0, 0)) == (255, 255, 255)


def test_its_twin_for_another_device_is_the_same_model(run_node, sample):
    demo = run_node()
    if not hasattr(demo.model, "deepclone_multigpu"):
        pytest.skip("this ComfyUI samples on one device only")
    twin = demo.model.deepclone_multigpu()
    assert twin.model is not demo.model.model
    assert torch.equal(sample(demo, twin), sample(demo))


def test_weights_kept_in_half_precision_give_the_same_picture(run_node, sample, monkeypatch):
    """The file is in half precision, so nothing is lost when the host keeps it so and computes in float32."""
    expected = sample(run_node())
    monkeypatch.setattr(comfy.model_management.args, "fp16_unet", True)
    demo = run_node()
    assert (demo.model.model.get_dtype(), demo.model.model.manual_cast_dtype) == (torch.float16, torch.float32)
    assert (sample(demo) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("text", ["a red zebra", "red blue", "apple apple"])
def test_an_unknown_prompt_is_refused_when_queued_and_when_run(demo_node, run_node, text):
    for field in ("prompt", "negative_prompt"):
        others = {"prompt": PROMPT, "negative_prompt": NEGATIVE}
        assert "prompt must be at most one colour" in demo_node.validate_inputs(**{**others, field: text})
        with pytest.raises(ValueError, match="prompt must be at most one colour"):
            run_node(**{**others, field: text})
    assert demo_node.validate_inputs(prompt="a red apple", negative_prompt="") is True
    assert demo_node.validate_inputs(prompt=None, negative_prompt=None) is True  # as the host gives what is linked


def test_damaged_weights_are_an_error_that_says_what_to_do(run_node, tmp_path):
    stored, path = load(), tmp_path / "weights.safetensors"
    with pytest.raises(RuntimeError, match="are missing: .*reinstall the pack"):
        run_node(path=path)
    save(stored, path)
    run_node(path=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match="are damaged: .*reinstall the pack"):
        run_node(path=path)
    first = next(iter(stored.unet))
    weights = {**stored.unet, first: torch.full_like(stored.unet[first], torch.nan)}
    save(Checkpoint(stored.architecture, weights, stored.token_table, 1), path)
    with pytest.raises(RuntimeError, match="are damaged: .*reinstall the pack"):
        run_node(path=path)


@pytest.fixture(scope="module", params=["as shipped", "another architecture"])
def weights(request, tmp_path_factory):
    """A file of weights, and its model in diffusers."""
    pytest.importorskip("diffusers")
    from demo.engine import Engine
    from demo.unet import build

    path = None
    if request.param == "another architecture":
        network = build(OTHER)
        randomise(network, 0)
        table = torch.randn(load().token_table.shape[0], OTHER.token_width, generator=torch.Generator().manual_seed(1))
        path = tmp_path_factory.mktemp("weights") / "other.safetensors"
        save(Checkpoint(OTHER, network.state_dict(), table, 0), path)
    return path, Engine(load(path) if path else load())


@pytest.mark.parametrize("steps, sampler", [(1, "euler"), (4, "ddim"), (8, "euler")])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("scale, blur_sigma", [(0.0, 1.0), (0.75, 1.0), (1.5, 3.0)])
def test_draws_the_same_picture_as_diffusers(run_node, guide, weights, steps, sampler, cfg, scale, blur_sigma):
    from demo.guidance import SelfAttentionGuidance

    class Watched(SelfAttentionGuidance):
        clear = 1.0  # the least distance of attention from the threshold

        def __call__(self, step):
            received = self._recorder.received[step.branch]
            self.clear = min(self.clear, (received - self.settings.mask_threshold).abs().min().item())
            return super().__call__(step)

    path, engine = weights
    demo = run_node(path=path)
    for seed in range(20):
        noise = engine.noise(seed)
        with Watched(engine.unet, scale, blur_sigma) as guidance:
            expected = engine.sample(noise, [PROMPT], steps=steps, cfg=cfg, guidance=guidance if scale else None)
        if guidance.clear > CLEAR:
            break
    assert guidance.clear > CLEAR

    def on_host(model):
        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, steps, cfg, sampler, "simple", demo.positive, demo.negative, demo.latent["samples"],
                disable_pbar=True, seed=seed,
            )  # fmt: skip

    ours = on_host(guide(demo.model, scale, blur_sigma))
    assert (ours - expected).abs().max() <= PARITY
    if scale:
        assert (on_host(demo.model) - expected).abs().max() > 10 * PARITY
