"""Every model family is guided by the attention it really has, or refused with one warning."""

import math

import comfy.sample
import pytest
import torch
from attention_calls import attention_calls, received_by_brute_force
from families import FAMILIES, available, build, conditioning, latent_of
from outcomes import outcome, sample, spied, streams
from real_host import RealHost

HERE = [family for family in FAMILIES if available(family)]


@pytest.fixture(params=HERE, ids=[family.name for family in HERE])
def family(request):
    return request.param


@pytest.fixture
def guided_family(family, guide):
    if outcome(family.name, guide)[0] == "refused":
        pytest.skip(f"{family.name} is refused on this host")
    return family


def test_a_family_is_guided_or_refused_with_one_warning_that_names_it(family, guide):
    what, messages, guided, _, plain = outcome(family.name, guide)
    assert plain.isfinite().all() and guided.isfinite().all()
    if what == "guided":
        assert (guided - plain).abs().max() > 1e-3 * plain.abs().max()
    else:
        assert len(messages) == 1 and type(build(family).model.diffusion_model).__name__ in messages[0]
        assert "mask_mode global_blur" in messages[0]
        assert torch.equal(guided, plain)


def test_what_a_refusal_advises_works(advanced, guide, caplog):
    refused = [family for family in HERE if outcome(family.name, guide)[0] == "refused"]
    caplog.clear()
    for family in refused:
        image = streams(sample(advanced(build(family), mask_mode="global_blur"), family, cfg=4.0))[0]
        plain = outcome(family.name, guide)[-1]
        assert image.isfinite().all() and (image - plain).abs().max() > 1e-3 * plain.abs().max()
    assert not [record for record in caplog.records if record.name == "self-attention-guidance"]


def test_scale_0_changes_no_bit(family, guide):
    *_, neutral, plain = outcome(family.name, guide)
    assert torch.equal(neutral, plain)


@pytest.mark.parametrize("cfg", [4.0, 1.0], ids=["cfg 4", "cfg 1"])
def test_the_recorded_map_is_that_of_the_q_and_k_that_the_model_used(guided_family, guide, cfg):
    family, model = guided_family, build(guided_family)
    image = math.prod(family.grid)
    guided, seen = spied(guide(model))
    with attention_calls(model.model.diffusion_model) as passes:
        assert all(stream.isfinite().all() for stream in streams(sample(guided, family, cfg, steps=1)))
    (here,) = seen
    assert {block for _, block, _ in here.maps} == set(family.chosen)
    assert len({key for key, _, _ in here.maps}) == 1
    # One more evaluation than without guidance, of the guided branch alone.
    assert len(passes) == (2 if cfg == 1 or len(passes[0][family.call(0)].q) == 2 * family.batch else 3)
    for ((uuid, _), block, _), recorded in here.maps.items():
        calls = [calls[family.chosen[block]] for calls in passes if uuid in calls[family.chosen[block]].uuids]
        assert len(calls) == 1
        first_row = calls[0].uuids.index(uuid) * family.batch
        rows = slice(first_row, first_row + family.batch)
        expected = received_by_brute_force(calls[0], family.first(calls[0].k.shape[-2], image), image)[rows]
        assert recorded.grid == family.grid and recorded.latent_size == family.latent[1:]
        torch.testing.assert_close(recorded.received.double(), expected, rtol=1e-4, atol=1e-4)
        assert recorded.received.std() > 1e-3  # a map that shows something


def test_what_the_model_sees_at_a_place_is_recorded_at_that_place(guided_family, guide):
    family, model = guided_family, build(guided_family)
    if family.mixes:
        pytest.skip("convolutions spread the patch before the first attention")
    place = (*(min(1, frames - 1) for frames in family.grid[:-2]), 1, family.grid[-1] - 2)  # (t, row, column)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *family.latent, generator=random)
    sound = [torch.randn(1, *family.sound, generator=random)] if family.sound else []
    changed = noise.clone()
    changed[(..., *(slice(at * side, (at + 1) * side) for at, side in zip(place, family.patch)))] *= -3

    # Where in the sequence is that patch? Where the first block's keys change most.
    keys = []
    for latent in (noise, changed):
        with attention_calls(model.model.diffusion_model) as passes:
            one_step(model, family, latent_of(latent, *sound))
        keys.append(passes[0][family.call(0)].k)
    difference = (keys[0] - keys[1]).square().sum(-1)
    token = int((difference.sum(1) if difference.ndim == 3 else difference)[0].argmax())

    # Everything looks at that token: then the recorded map must peak at that place.
    def look_at_token(number, q, k):
        if number in family.chosen.values():
            q, k = torch.full_like(q, 2.0), k.clone()
            k[..., token, :] = 2.0
        return q, k

    guided, seen = spied(guide(model))
    with attention_calls(model.model.diffusion_model, look_at_token):
        one_step(guided, family, latent_of(noise, *sound))
    assert len(seen[0].maps) == len(family.chosen)
    for recorded in seen[0].maps.values():
        peak = torch.unravel_index(recorded.received[0].argmax(), recorded.grid)
        assert tuple(int(i) for i in peak) == place
        assert recorded.received[0].max() > 2


def one_step(model, family, noise):
    positive = conditioning(family, seed=1)
    empty = latent_of(*(torch.zeros_like(stream) for stream in streams(noise)))
    comfy.sample.sample(model, noise, 1, 1.0, "euler", "simple", positive, positive, empty, disable_pbar=True)


def test_the_sound_that_is_packed_with_a_video_stays_as_it_is(guide):
    """In one step bit for bit; the next step hears it with the guided video beside it."""
    family = next((family for family in HERE if family.sound), None)
    if family is None:
        pytest.skip("this host packs no sound with a video")
    model = build(family)
    (video, sound), (plain_video, plain_sound) = (
        streams(sample(m, family, cfg=4.0, steps=1)) for m in (guide(model), model)
    )
    assert torch.equal(sound, plain_sound)
    assert (video - plain_video).abs().max() > 1e-3 * plain_video.abs().max()


@pytest.mark.parametrize("name", ["Flux.1 dev", "Wan 2.1 text to video", "Kandinsky 5 video"])
def test_areas_and_masks_of_a_prompt(name, guide, caplog):
    """Two prompts, one in an area and one under a mask, on images and on videos."""
    family = next((family for family in HERE if family.name == name), None)
    if family is None:
        pytest.skip(f"this host has no {name}")
    height, width = family.latent[-2:]
    mask = torch.zeros(1, height * 8, width * 8)
    mask[:, :, : width * 4] = 1
    (text, extras), (other, more) = conditioning(family, seed=1)[0], conditioning(family, seed=3)[0]
    area = (6, 8, 2, 4)
    negative = [[text, {**extras, "area": area, "strength": 0.7}], [other, {**more, "mask": mask}]]
    images, latent = [], torch.zeros(1, *family.latent)
    for model in (build(family), guide(build(family))):
        images.append(
            RealHost().sample(model, conditioning(family, seed=4), negative, latent, cfg=4.0, scheduler="simple")
        )
    assert images[1].isfinite().all() and not torch.equal(*images)
    assert not [record for record in caplog.records if record.name == "self-attention-guidance"]
