import pytest
import torch

pytest.importorskip("diffusers", reason="the demo's sampler needs: pip install diffusers")

import sag_core
from demo.checkpoint import Architecture, Checkpoint
from demo.engine import Engine
from demo.guidance import SelfAttentionGuidance
from demo.prompts import TABLE_ROWS
from demo.unet import build

TEXTS = ["a red apple", "duck"]


@pytest.fixture(scope="module")
def engine():
    """A network of random weights whose attention is far from uniform."""
    architecture = Architecture(size=16, channels=(32, 32), token_width=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = build(architecture)
        table = torch.randn(TABLE_ROWS, architecture.token_width)
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    with torch.no_grad():
        attention.to_q.weight.mul_(10)
    return Engine(Checkpoint(architecture, unet.state_dict(), table, trained_steps=0))


@pytest.fixture
def noise(engine):
    return engine.noise(0, len(TEXTS))


def processors(engine):
    return dict(engine.unet.attn_processors)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("cfg, passes", [(1.0, 1), (3.0, 2), (0.0, 2)])
@pytest.mark.parametrize("scale, more", [(None, 0), (0.75, 1), (-0.5, 1), (0.0, 0)])
def test_costs_as_many_evaluations_as_it_says(engine, noise, steps, cfg, passes, scale, more):
    before = engine.evaluations
    if scale is None:
        engine.sample(noise, TEXTS, steps=steps, cfg=cfg)
    else:
        with SelfAttentionGuidance(engine.unet, scale) as guidance:
            engine.sample(noise, TEXTS, steps=steps, cfg=cfg, guidance=guidance)
    assert engine.evaluations - before == (passes + more) * len(TEXTS) * steps


@pytest.mark.parametrize("start, end, guided", [(0.0, 0.5, 2), (0.25, 0.75, 2), (0.5, 1.0, 2), (0.6, 0.4, 0)])
def test_guides_in_a_half_open_part_of_the_schedule(engine, noise, start, end, guided):
    before, passes = engine.evaluations, []
    window = {"start_percent": start, "end_percent": end}
    with SelfAttentionGuidance(engine.unet, 0.75, on_mask=passes.append, **window) as guidance:
        engine.sample(noise, TEXTS, steps=4, guidance=guidance)
    assert len(passes) == guided
    assert engine.evaluations - before == (4 + guided) * len(TEXTS)


def test_the_image_difference_is_the_noise_difference_and_what_the_blur_removes(engine, noise):
    """In one step of everything blurred, where the prediction is the picture."""
    drawn = {}
    for difference in ("noise", "image"):
        with SelfAttentionGuidance(engine.unet, 0.5, mask_mode="global_blur", difference=difference) as guidance:
            drawn[difference] = engine.sample(noise, TEXTS, steps=1, guidance=guidance)
    x0 = engine.sample(noise, TEXTS, steps=1)
    removed = x0 - sag_core.gaussian_blur(x0, 1.0)
    torch.testing.assert_close(drawn["image"] - drawn["noise"], 0.5 * removed, rtol=1e-3, atol=1e-3)


def test_half_precision_in_the_network_leaves_float32_outside(engine, noise):
    architecture, table = engine.architecture, engine.token_table
    half = Engine(Checkpoint(architecture, engine.unet.state_dict(), table, 0), dtype=torch.bfloat16)
    exact, drawn = (one.sample(noise, TEXTS, steps=3) for one in (engine, half))
    assert drawn.dtype == torch.float32
    assert 0 < (drawn - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_guidance_changes_the_pictures_and_at_scale_zero_not_a_bit(engine, noise, cfg):
    results = []
    for scale in (0.0, 0.75):
        with SelfAttentionGuidance(engine.unet, scale) as guidance:
            results.append(engine.sample(noise, TEXTS, steps=3, cfg=cfg, guidance=guidance))
    without = engine.sample(noise, TEXTS, steps=3, cfg=cfg)
    assert torch.equal(results[0], without)
    assert (results[1] - without).abs().max() > 1e-3


def test_without_classifier_free_guidance_only_the_prompt_counts(engine, noise):
    """DDIM written out, each picture by itself."""
    steps = 4
    expected = []
    for x, text in zip(noise.split(1), TEXTS):
        for i in range(steps):
            time = 999 - i * 250
            signal = engine.schedule.alphas_cumprod[time]
            after = engine.schedule.alphas_cumprod[time - 250] if i < steps - 1 else torch.tensor(1.0)
            eps = engine.unet(x, time, engine.embed([text])).sample
            x0 = (x - (1 - signal).sqrt() * eps) / signal.sqrt()
            x = after.sqrt() * x0 + (1 - after).sqrt() * eps
        expected.append(x)
    torch.testing.assert_close(engine.sample(noise, TEXTS, steps=steps), torch.cat(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [3, 7, 13])
def test_thirteen_steps_left_noise_in_the_picture(engine, noise, steps):
    """The last step of any number of steps ends at the prediction itself, whether or not the number divides 1000."""
    predictions = []

    def watch(step):
        predictions.append(step.denoised)
        return step.denoised

    drawn = engine.sample(noise, TEXTS, steps=steps, guidance=watch)
    assert len(predictions) == steps
    assert torch.equal(drawn, predictions[-1])


def test_every_step_leads_to_the_noise_level_that_the_next_one_is_told(engine, noise):
    """Predicted as the clean picture, pure noise keeps its direction: what a step gets is alpha c + sigma noise."""
    clean, told = torch.full_like(noise, 0.25), []

    def perfect(step):
        told.append((step.alpha, step.sigma))
        start_alpha, start_sigma = told[0]
        direction = (noise - start_alpha * clean) / start_sigma
        torch.testing.assert_close(step.x, step.alpha * clean + step.sigma * direction, rtol=1e-4, atol=1e-4)
        return clean

    engine.sample(noise, TEXTS, steps=13, guidance=perfect)
    assert len(set(told)) == 13


def test_classifier_free_guidance_leads_away_from_the_empty_prompt(engine, noise):
    cond, uncond, guided = (
        engine.sample(noise, texts, steps=1, cfg=cfg) for texts, cfg in [(TEXTS, 1.0), (["", ""], 1.0), (TEXTS, 3.0)]
    )
    assert (cond - uncond).abs().max() > 1e-3
    torch.testing.assert_close(guided, uncond + 3 * (cond - uncond), rtol=1e-4, atol=1e-4)


def test_on_step_sees_every_step_and_the_last_is_the_result(engine, noise):
    seen = []
    result = engine.sample(noise, TEXTS, steps=3, on_step=seen.append)
    assert [x.shape for x in seen] == [noise.shape] * 3
    assert torch.equal(seen[-1], result) and not torch.equal(seen[0], seen[1])


def test_masks_are_shown_and_mark_a_part_of_the_picture(engine, noise):
    masks = []
    with SelfAttentionGuidance(engine.unet, 0.75, on_mask=masks.append) as guidance:
        engine.sample(noise, TEXTS, steps=2, cfg=3.0, guidance=guidance)
    assert [mask.shape for mask in masks] == [(2, 1, 16, 16)] * 2
    for mask in masks:
        assert set(mask.unique().tolist()) == {0.0, 1.0}


def masks_of(engine, noise, **settings):
    masks = []
    with SelfAttentionGuidance(engine.unet, 0.75, on_mask=masks.append, **settings) as guidance:
        engine.sample(noise, [""] * len(noise), steps=1, guidance=guidance)
    return masks[0]


def test_the_mask_can_be_everything_or_as_much_but_anywhere(engine, noise):
    attended = masks_of(engine, noise)
    anywhere = masks_of(engine, noise, mask_mode="random")
    assert masks_of(engine, noise, mask_mode="global_blur").min() == 1
    assert torch.equal(anywhere.sum((1, 2, 3)), attended.sum((1, 2, 3)))
    assert not torch.equal(anywhere, attended)


def test_sides_that_halve_to_no_whole_number_are_guided(engine):
    noise = torch.randn(1, 3, 15, 17)  # the middle block has 8 x 9 tokens
    assert masks_of(engine, noise).shape == (1, 1, 15, 17)


@pytest.mark.parametrize(
    "texts, how, message",
    [
        (["apple"], {}, "a prompt for each of 2 pictures, got 1"),
        ([], {}, "a prompt for each of 2 pictures, got 0"),
        (TEXTS, {"steps": 0}, "steps must be from 1 to 1000, got 0"),
        (TEXTS, {"steps": 1001}, "steps must be from 1 to 1000, got 1001"),
        (["apple", "a red zebra"], {}, "got 'zebra'"),
        (["apple", "red blue duck"], {}, "got 'blue' twice"),
    ],
)
def test_says_what_does_not_fit(engine, noise, texts, how, message):
    before = engine.evaluations
    with pytest.raises(ValueError, match=message):
        engine.sample(noise, texts, **how)
    assert engine.evaluations == before


def test_the_attention_is_as_it_was_afterwards(engine, noise):
    before = processors(engine)
    with SelfAttentionGuidance(engine.unet, 0.75) as guidance:
        assert processors(engine) != before
        engine.sample(noise, TEXTS, steps=1, guidance=guidance)
    assert processors(engine) == before


def test_the_attention_is_as_it_was_after_an_error(engine, noise):
    before = processors(engine)

    def stop(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), SelfAttentionGuidance(engine.unet, 0.75) as guidance:
        engine.sample(noise, TEXTS, steps=2, guidance=guidance, on_step=stop)
    assert processors(engine) == before


def test_a_seed_is_a_picture_wherever_it_stands(engine):
    rows = engine.noise(7, 3)
    assert rows.shape == (3, 3, 16, 16)
    for i, row in enumerate(rows):
        assert torch.equal(row, engine.noise(7 + i)[0])
    assert not torch.equal(rows[0], rows[1])
