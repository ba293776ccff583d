"""Puts guidance on a ModelPatcher, and guides a step after classifier-free guidance."""

import math
import uuid
from collections.abc import Sequence
from typing import Any, Callable, Optional

from torch import Tensor

from ...sag_core import MASK_MODES, Settings, degradation_mask, finite_samples, guidance_term, steer
from .blocks import parse_blocks
from .branches import (
    WITHOUT_ATTENTION,
    NotAnsweredByTheModel,
    NotGuidable,
    View,
    branch_map,
    evaluate,
    guided_branch,
    others_may_mix_branches,
    reproduces,
)
from .evaluation import Branch, Evaluation, Listener, Pass, Run, logger
from .layouts import Block, layout_for
from .recording import current_evaluation, listen
from .region import check_mask, region_on
from .streams import Streams, streams_of
from .timing import plan_of
from .watching import GuidedStep, Watch
from .windows import lay_together


def guide_model(model, settings: Settings, *, mask: Optional[Tensor] = None, watches: Sequence[Watch] = ()):
    """A clone of a ComfyUI MODEL that is guided in every run; the model itself stays as it is.

    A scale of 0, or a blur of 0, patches nothing: such a run is the run without the node, bit for bit.

    Args:
        settings: how strongly and when to guide, what attention to read, and what to degrade.
        mask: a MASK, where to guide; default everywhere.
        watches: who looks on.

    Raises:
        ValueError: blocks that the model lacks, a mask of another form.
    """
    guided = model.clone()
    listener = _listener(model.get_model_object("diffusion_model"), settings, watches)
    region = None if mask is None else check_mask(mask)
    if settings.scale == 0 or settings.blur_sigma == 0:
        return guided
    listen(guided.model_options, listener)
    if listener.blocks or listener.statistic is None:
        guided.set_model_sampler_post_cfg_function(_guidance(settings, listener, region))
    return guided


def _listener(network, settings: Settings, watches: Sequence[Watch]) -> Listener:
    node = uuid.uuid4()
    statistic = MASK_MODES[settings.mask_mode].statistic
    blocks: tuple[Block, ...] = ()
    note: Optional[str] = None
    if statistic is not None:
        blocks, note = _blocks(network, settings)
    if settings.start_percent >= settings.end_percent:
        note = (
            f"start_percent {settings.start_percent:g} is not below end_percent {settings.end_percent:g}; "
            "no step is guided"
        )
    plan = plan_of(settings, node)
    return Listener(node, blocks, note, statistic, settings.branch, plan, _once_a_run(), tuple(watches))


def _blocks(network, settings: Settings) -> tuple[tuple[Block, ...], Optional[str]]:
    """The blocks to read, and what there is to say about them."""
    layout = layout_for(network)
    if layout is None:
        kind = type(getattr(network, "_orig_mod", network)).__name__
        return (), f"the attention of this model ({kind}) cannot be read; the image is not guided ({WITHOUT_ATTENTION})"
    if settings.reads_blocks_by_itself:
        return layout.automatic(network)
    return parse_blocks(settings.attention_blocks, layout.blocks(network)), None


def _once_a_run() -> Callable[[float], None]:
    """What says that no run of a guider leads: once for noise levels that only fall."""
    last = -math.inf

    def say(sigma: float) -> None:
        nonlocal last
        if sigma > last:
            logger.warning(
                "Self-Attention Guidance: the sampler or guider does not run the guided model as its own; "
                "the image is not guided."
            )
        last = sigma

    return say


def _guidance(settings: Settings, listener: Listener, region: Optional[Tensor]):
    def post_cfg(args: dict[str, Any]) -> Tensor:
        denoised = args["denoised"]
        evaluation = current_evaluation(args.get("model_options", {}))
        if evaluation is None:
            sigma = args.get("sigma")
            listener.without_guider(math.inf if sigma is None else sigma.max().item())
            return denoised
        plan = evaluation.plans.get(listener.node)
        if plan is None:
            return denoised
        streams = streams_of([*(args.get("cond") or ()), *(args.get("uncond") or ())])
        try:
            attention, blurred, term = _term(settings, listener, args, evaluation, streams, plan.fresh)
        except NotGuidable as reason:
            evaluation.run.warn(f"{reason}; steps like this one are not guided")
            return denoised
        unguided = streams.first(denoised)
        guided = steer(
            unguided,
            term,
            plan.scale,
            projection=settings.projection,
            rescale=settings.rescale,
            rescale_mode=settings.rescale_mode,
            reference=streams.first(args.get("cond_denoised", denoised)),
            region=None if region is None else region_on(term, region),
        )
        if listener.watches:
            strength = (guided - unguided).flatten(1).norm(dim=1) / unguided.flatten(1).norm(dim=1)
            step = GuidedStep(evaluation.number, evaluation.sigma, attention, blurred, term, plan.scale, strength)
            for watch in listener.watches:
                watch.guided(step)
        return streams.put(denoised, guided)

    return post_cfg


def _term(
    settings: Settings,
    listener: Listener,
    args: dict[str, Any],
    evaluation: Evaluation,
    streams: Streams,
    fresh: bool,
) -> tuple[Optional[Tensor], Optional[Tensor], Tensor]:
    """What the mask is made of, the mask, and what the guided branch loses by the blur.

    The last is asked of the model or, between the steps that ask it, the last one's again, without the others.
    """
    for name in ("input", "sigma", "model"):
        if args.get(name) is None:
            raise NotGuidable(f"the sampler does not say what its {name} is")
    x, sigma, run = streams.first(args["input"]), args["sigma"], evaluation.run
    if x.ndim not in (4, 5):
        raise NotGuidable(f"latents of shape {tuple(x.shape)} hold no rows and columns")
    if not fresh:
        return None, None, _last_term(run.terms[listener.node], x)
    here, branch = guided_branch(args, evaluation, settings.branch)
    attention, blurred = _mask(settings, listener, here, branch, evaluation.number, args)

    def denoise(x_bar: Tensor) -> Tensor:
        whole_batch = _whole_batch(here, branch, evaluation, args, listener)
        latent = streams.put(args["input"], x_bar)
        return streams.first(_ask(branch, latent, args, listener, run, whole_batch))

    term = guidance_term(
        x,
        streams.first(branch.prediction),
        blurred.to(x.dtype),
        denoise,
        blur_sigma=settings.blur_sigma,
        alpha=_image_share(args["model"].model_sampling, sigma, x),
        kernel_size=settings.blur_kernel or None,
        difference=settings.difference,
    )
    term, finite = finite_samples(term)
    run.note_broken(~finite.all())
    if settings.reuse:
        run.terms[listener.node] = term
    return attention, blurred, term


def _last_term(term: Tensor, x: Tensor) -> Tensor:
    if term.shape != x.shape:
        raise NotGuidable("the latent changed its size, and reuse has no guidance for the new one")
    return term


def _mask(
    settings: Settings, listener: Listener, here: Pass, branch: Branch, number: int, args: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """What the mask is made of, and what to blur, 0..1, both (b, 1, h, w)."""
    sigma, handler = args["sigma"], args["model_options"].get("context_handler")

    def attention(shuffle_seed: Optional[int]) -> Tensor:
        assert listener.statistic is not None  # a mode without one does not ask for attention
        view = View(listener.blocks, listener.statistic, settings.mask_upsampling, shuffle_seed)
        if here.windows:
            return lay_together(here, branch, lambda part, one: branch_map(part, one, view, sigma), handler, sigma)
        return branch_map(here, branch, view, sigma)

    if here.skips(branch):
        raise NotGuidable("the model was not called at this step and was not seen; another node answered in its stead")
    return degradation_mask(settings, streams_of(branch.entries).first(branch.prediction), attention, number)


def _whole_batch(here: Pass, branch: Branch, evaluation: Evaluation, args: dict[str, Any], listener: Listener) -> bool:
    """Whether the re-run has to evaluate the other branches too, because another node lets them mix with this one.

    Found out by a re-run that blurs nothing and must answer as the model did, at the run's guided steps 1, 2, 4, 8 and
    so on, as such a node may begin late, and only where there are patches that could do it.
    """
    run = evaluation.run
    due = run.guided & (run.guided - 1) == 0
    if run.whole_batch or not due or not others_may_mix_branches(branch, args["model_options"]):
        return run.whole_batch

    def answers_alike(whole_batch: bool) -> bool:
        return reproduces(branch, here.x, _ask(branch, here.x, args, listener, run, whole_batch))

    if not answers_alike(whole_batch=False):
        run.whole_batch = answers_alike(whole_batch=True)
        if run.whole_batch:
            logger.info("Self-Attention Guidance: another node mixes the branches; all of them are evaluated again.")
        else:
            run.warn("another node changes the model's answers from call to call, and guidance with them")
    return run.whole_batch


def _ask(branch: Branch, x: Tensor, args: dict[str, Any], listener: Listener, run: Run, whole_batch: bool) -> Tensor:
    """Re-run a branch, around a wrapper of the model that answers from a cache in its stead.

    Around it only if the model then predicts what it predicted through it, and if there is no such way never again: a
    cache that is asked too often answers differently.
    """
    options, sigma = args["model_options"], args["sigma"]
    if run.answered_by_others:
        raise NotAnsweredByTheModel("another node, such as a step cache, answers in the model's stead")
    without = {name: value for name, value in options.items() if name != "model_function_wrapper"}
    try:
        return evaluate(
            branch, x, sigma, without if run.around else options, listener.node, listener.blocks, whole_batch
        )
    except NotAnsweredByTheModel:
        run.answered_by_others = True
        if run.around or len(without) == len(options):
            raise
        answer = evaluate(branch, args["input"], sigma, without, listener.node, listener.blocks, whole_batch)
        if not reproduces(branch, args["input"], answer):
            raise
    run.around, run.answered_by_others = True, False
    return _ask(branch, x, args, listener, run, whole_batch)


def _image_share(model_sampling, sigma: Tensor, x: Tensor) -> Tensor:
    """alpha(sigma): the share of the image in a latent at this noise level, as the model's own noising has it."""
    shape = (sigma.shape[0],) + (1,) * (x.ndim - 1)
    none, all_of_it = x.new_zeros(shape), x.new_ones(shape)
    return model_sampling.noise_scaling(sigma.reshape(shape).to(x.dtype), none, all_of_it)
