"""Caches of the TeaCache kind, which answer for the model's blocks with the residual of an earlier evaluation."""

from unittest import mock

import pytest
import torch
from families import ORDERS, build, family_named, in_order
from outcomes import sample


class Cache:
    """A step cache as the TeaCache nodes write it: around the model's own call, its forward is another one.

    Where the timestep has hardly changed since the last evaluation under the same key, what the blocks added then is
    added again.
    """

    def __init__(self, key, threshold):
        self.key, self.threshold = key, threshold
        self.kept, self.log = {}, []

    def around(self, model):
        network, model = model.model.diffusion_model, model.clone()
        forward = network.forward_orig

        def cached(x, t, *args, transformer_options, **kwargs):
            keys = tuple(transformer_options[self.key])
            before, residual = self.kept.get(keys, (None, None))
            if before is not None and (t[0] - before).abs() <= self.threshold:
                self.log.append((keys, "kept"))
                return x[:, : residual.shape[1]] + residual
            out = forward(x, t, *args, transformer_options=transformer_options, **kwargs)
            self.kept[keys] = t[0], out - x[:, : out.shape[1]]
            self.log.append((keys, "asked"))
            return out

        def wrapper(apply_model, args):
            with mock.patch.object(network, "forward_orig", cached):
                return apply_model(args["input"], args["timestep"], **args["c"])

        model.set_model_unet_function_wrapper(wrapper)
        return model


def ours(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "self-attention-guidance"]


@ORDERS
@pytest.mark.parametrize("key", ["cond_or_uncond", "uuids"])
def test_a_re_run_is_never_answered_from_the_main_pass(guide, caplog, order, key):
    """A threshold of 0 keeps nothing from step to step: the run is the guided run without a cache."""
    family = family_named("Wan 2.1 text to video")
    model, cache = build(family), Cache(key, 0.0)
    expected = sample(guide(model), family, cfg=1.0)
    image = sample(in_order(order, guide, cache.around, model), family, cfg=1.0)
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)
    assert ours(caplog) == []


def test_what_such_a_cache_would_do_to_a_re_run(guide):
    """By index it takes the re-run for the main pass once more; that answer is not used."""
    family = family_named("Wan 2.1 text to video")
    model, cache = build(family), Cache("cond_or_uncond", 0.0)
    sample(guide(cache.around(model)), family, cfg=1.0)
    assert [what for _, what in cache.log] == ["asked", "kept", "asked"]  # from then on the re-runs go around it


@ORDERS
@pytest.mark.parametrize("key", ["cond_or_uncond", "uuids"])
def test_a_step_that_the_cache_answers_is_not_guided(guide, caplog, order, key):
    family = family_named("Wan 2.1 text to video")
    model, cache = build(family), Cache(key, 1e9)
    image = sample(in_order(order, guide, cache.around, model), family, cfg=1.0, steps=3)
    assert image.isfinite().all()
    assert ours(caplog) and all("not guided" in message for message in ours(caplog))


def test_a_cache_that_cannot_be_gone_around_leaves_the_run_unguided(guide, caplog):
    """Its wrapper does something else beside: without it the model predicts another thing."""
    family = family_named("Wan 2.1 text to video")
    model, cache = build(family), Cache("cond_or_uncond", 0.0)
    cached = cache.around(model)
    inner = cached.model_options["model_function_wrapper"]
    cached.set_model_unet_function_wrapper(lambda apply_model, args: inner(apply_model, args) * 1.1)
    assert torch.equal(sample(guide(cached), family, cfg=1.0), sample(cached, family, cfg=1.0))
    assert len(ours(caplog)) == 1 and "step cache" in ours(caplog)[0]
