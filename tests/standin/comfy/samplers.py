"""From a sampler's step down to one batched model call, with the host's rules for batching, areas and guidance."""

import math
import uuid
from collections import defaultdict, namedtuple

import torch

import comfy.model_patcher
import comfy.model_sampling
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers, merge_nested_dicts

CondObj = namedtuple("CondObj", "input_x mult conditioning area control patches uuid hooks")


def get_area_and_mult(conds, x_in, timestep_in):
    """Crop the latent to one conditioning entry and weigh its output; None outside the entry's timestep range."""
    sigma = timestep_in[0]
    if sigma > conds.get("timestep_start", sigma) or sigma < conds.get("timestep_end", sigma):
        return None
    dims = x_in.ndim - 2
    area, window = None, (slice(None),) * dims
    if "area" in conds:  # (sizes..., offsets...) in latent pixels
        offsets = conds["area"][dims:]
        sizes = [min(size, full - start) for size, full, start in zip(conds["area"], x_in.shape[2:], offsets)]
        area = [*sizes, *offsets]
        window = tuple(slice(start, start + size) for size, start in zip(sizes, offsets))
    input_x = x_in[(..., *window)]

    if "mask" in conds:
        mask = conds["mask"][: x_in.shape[0]][(..., *window)] * conds.get("mask_strength", 1.0)  # (b, h, w)
        mult = mask.unsqueeze(1).repeat(x_in.shape[0] // mask.shape[0], x_in.shape[1], *[1] * dims)
    else:
        mult = torch.ones_like(input_x)
    mult = mult * conds.get("strength", 1.0)
    if area is not None and "mask" not in conds:
        for dim, (size, start, full) in enumerate(zip(sizes, offsets, x_in.shape[2:])):
            mult = mult * _feather(size, start > 0, start + size < full, mult).view(-1, *[1] * (dims - 1 - dim))

    conditioning = {
        name: cond.process_cond(batch_size=x_in.shape[0], area=area) for name, cond in conds["model_conds"].items()
    }
    return CondObj(input_x, mult, conditioning, area, conds.get("control"), None, conds["uuid"], conds.get("hooks"))


def _feather(size, at_start, at_end, like):
    """Weights of one axis that rise over up to 8 latent pixels at the edges which lie inside the picture."""
    weights = like.new_ones(size)
    edge = min(8, size // 4)
    ramp = torch.arange(1, edge + 1, device=like.device) / edge if edge else weights[:0]
    if at_start:
        weights[:edge] *= ramp
    if at_end:
        weights[size - edge :] *= ramp.flip(0)
    return weights


def can_concat_cond(c1, c2):
    """Whether two entries may share one model call: same shape, the very same ControlNet, compatible inputs."""
    return (
        c1.input_x.shape == c2.input_x.shape
        and c1.control is c2.control
        and c1.patches is c2.patches
        and c1.conditioning.keys() == c2.conditioning.keys()
        and all(cond.can_concat(c2.conditioning[name]) for name, cond in c1.conditioning.items())
    )


def cond_cat(c_list):
    return {name: cond.concat([c[name] for c in c_list[1:]]) for name, cond in c_list[0].items()}


def _add_default_conds(hooked_to_run, conds, x_in, timestep):
    """Entries marked "default" fill what the other entries of their index leave uncovered."""
    for index, entries in enumerate(conds):
        defaults = [entry for entry in entries or () if "default" in entry]
        rest = torch.ones_like(x_in)
        for run in hooked_to_run.values():
            for p, i in run:
                if i == index and defaults:
                    _window(rest, p.area).sub_(p.mult)
        rest.relu_()
        for entry in defaults if rest.max() > 0 else ():
            p = get_area_and_mult(entry, x_in, timestep)
            if p is not None:
                hooked_to_run[p.hooks].append((p._replace(mult=rest), index))


def _window(tensor, area):
    """The part of a full-size tensor that an area covers, as a view."""
    if area is None:
        return tensor
    dims = len(area) // 2
    return tensor[(..., *(slice(area[dims + i], area[dims + i] + area[i]) for i in range(dims)))]


def calc_cond_batch(model, conds, x_in, timestep, model_options):
    wrappers = get_all_wrappers(WrappersMP.CALC_COND_BATCH, model_options, is_model_options=True)
    executor = WrapperExecutor.new_executor(_calc_cond_batch, wrappers)
    return executor.execute(model, conds, x_in, timestep, model_options)


def _calc_cond_batch(model, conds, x_in, timestep, model_options):
    """x0 for each index of `conds`; what may share a model call does, as far as memory reaches."""
    hooked_to_run = defaultdict(list)  # entries with different hooks never share a call
    for index, entries in enumerate(conds):
        for entry in entries or ():  # an index without entries comes out as zeros
            p = None if "default" in entry else get_area_and_mult(entry, x_in, timestep)
            if p is not None:
                hooked_to_run[p.hooks].append((p, index))
    _add_default_conds(hooked_to_run, conds, x_in, timestep)

    sums = [torch.zeros_like(x_in) for _ in conds]
    weights = [torch.full_like(x_in, 1e-37) for _ in conds]
    for to_run in hooked_to_run.values():
        while to_run:
            chosen = _next_batch(model, to_run, x_in.device)
            batch = [to_run.pop(position) for position in chosen]
            for (p, index), output in zip(batch, _run_batch(model, batch, timestep, model_options)):
                _window(sums[index], p.area).add_(output * p.mult)
                _window(weights[index], p.area).add_(p.mult)
    return [total / weight for total, weight in zip(sums, weights)]


def _next_batch(model, to_run, device):
    """Positions in to_run, last first, of what goes with its first entry: all, half, a third, ... as memory allows."""
    first = to_run[0][0]
    matching = [n for n, (p, _) in enumerate(to_run) if can_concat_cond(p, first)][::-1]
    free_memory = model.current_patcher.get_free_memory(device)
    for divisor in range(1, len(matching) + 1):
        part = matching[: len(matching) // divisor]
        shape = [len(part) * first.input_x.shape[0], *first.input_x.shape[1:]]
        cond_shapes = {name: [to_run[n][0].conditioning[name].size() for n in part] for name in first.conditioning}
        if model.memory_required(shape, cond_shapes=cond_shapes) * 1.5 < free_memory:
            return part
    return matching[:1]


def _run_batch(model, batch, timestep, model_options):
    """One model call for several entries; returns one output per entry."""
    entries, cond_or_uncond = [p for p, _ in batch], [index for _, index in batch]
    input_x = torch.cat([p.input_x for p in entries])
    timestep_ = torch.cat([timestep] * len(batch))
    transformer_options = merge_nested_dicts({}, model_options.get("transformer_options", {}))
    transformer_options["cond_or_uncond"] = cond_or_uncond[:]
    transformer_options["uuids"] = [p.uuid for p in entries]
    transformer_options["sigmas"] = timestep
    c = cond_cat([p.conditioning for p in entries])
    c["transformer_options"] = transformer_options
    control = entries[0].control
    if control is not None:
        c["control"] = control.get_control(input_x, timestep_, c, len(batch), transformer_options)
    if "model_function_wrapper" in model_options:
        args = {"input": input_x, "timestep": timestep_, "c": c, "cond_or_uncond": cond_or_uncond}
        output = model_options["model_function_wrapper"](model.apply_model, args)
    else:
        output = model.apply_model(input_x, timestep_, **c)
    return output.chunk(len(batch))


def cfg_function(model, cond_pred, uncond_pred, cond_scale, x, timestep, model_options={}, cond=None, uncond=None):
    common = {
        "cond_scale": cond_scale,
        "input": x,
        "sigma": timestep,
        "cond_denoised": cond_pred,
        "uncond_denoised": uncond_pred,
        "model": model,
        "model_options": model_options,
    }
    if "sampler_cfg_function" in model_options:  # works on x - x0, so it sees and returns differences
        args = {
            **common,
            "cond": x - cond_pred,
            "uncond": x - uncond_pred,
            "timestep": timestep,
            "input_cond": cond,
            "input_uncond": uncond,
        }
        result = x - model_options["sampler_cfg_function"](args)
    else:
        result = uncond_pred + (cond_pred - uncond_pred) * cond_scale
    for fn in model_options.get("sampler_post_cfg_function", []):
        result = fn({**common, "denoised": result, "cond": cond, "uncond": uncond})
    return result


def sampling_function(model, x, timestep, uncond, cond, cond_scale, model_options={}, seed=None):
    """One guided x0; at cfg 1 the unconditional branch has no weight, so it is not run."""
    if math.isclose(cond_scale, 1.0) and not model_options.get("disable_cfg1_optimization", False):
        uncond = None
    conds = [cond, uncond]
    common = {"conds": conds, "input": x, "sigma": timestep, "model": model, "model_options": model_options}
    if "sampler_calc_cond_batch_function" in model_options:
        out = model_options["sampler_calc_cond_batch_function"](dict(common))
    else:
        out = calc_cond_batch(model, conds, x, timestep, model_options)
    for fn in model_options.get("sampler_pre_cfg_function", []):
        out = fn({**common, "conds_out": out, "cond_scale": cond_scale, "timestep": timestep})
    return cfg_function(model, out[0], out[1], cond_scale, x, timestep, model_options, cond=cond, uncond=uncond)


class KSamplerX0Inpaint:
    """The model as a sampler sees it; where denoise_mask is 0 the latent stays as given."""

    def __init__(self, model, sigmas):
        self.inner_model, self.sigmas = model, sigmas

    def __call__(self, x, sigma, denoise_mask, model_options={}, seed=None):
        if denoise_mask is None:
            return self.inner_model(x, sigma, model_options=model_options, seed=seed)
        if "denoise_mask_function" in model_options:
            extra_options = {"model": self.inner_model, "sigmas": self.sigmas}
            denoise_mask = model_options["denoise_mask_function"](sigma, denoise_mask, extra_options=extra_options)
        kept = self.inner_model.inner_model.scale_latent_inpaint(
            x=x, sigma=sigma, noise=self.noise, latent_image=self.latent_image, denoise_mask=denoise_mask
        )
        x = x * denoise_mask + kept * (1.0 - denoise_mask)
        out = self.inner_model(x, sigma, model_options=model_options, seed=seed)
        return out * denoise_mask + self.latent_image * (1.0 - denoise_mask)


def sample_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i, (sigma, sigma_next) in enumerate(zip(sigmas, sigmas[1:])):
        denoised = model(x, sigma * x.new_ones(x.shape[0]), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        x = x + (x - denoised) / sigma * (sigma_next - sigma)
    return x


def sample_euler_ancestral(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Step further down than asked, then back up with fresh noise."""
    flow = isinstance(model.inner_model.inner_model.model_sampling, comfy.model_sampling.CONST)
    seed = (extra_args or {}).get("seed") or 0
    generator = torch.Generator(x.device).manual_seed(seed + (x.device.type == "cpu"))
    for i, (sigma, sigma_next) in enumerate(zip(sigmas, sigmas[1:])):
        denoised = model(x, sigma * x.new_ones(x.shape[0]), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        if sigma_next == 0:
            x = denoised
            continue
        noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        if flow:
            down = sigma_next**2 / sigma
            gain = (1 - sigma_next) / (1 - down)  # restores the share of x0 that belongs to sigma_next
            up = (sigma_next**2 - (down * gain) ** 2) ** 0.5
        else:
            up = torch.minimum(sigma_next, sigma_next * (sigma**2 - sigma_next**2) ** 0.5 / sigma)
            down, gain = (sigma_next**2 - up**2) ** 0.5, 1.0
        x = (denoised + (x - denoised) * down / sigma) * gain + noise * up
    return x


SAMPLERS = {"euler": sample_euler, "euler_ancestral": sample_euler_ancestral}


class KSAMPLER:
    def __init__(self, sampler_function, extra_options={}, inpaint_options={}):
        self.sampler_function, self.extra_options = sampler_function, extra_options

    def max_denoise(self, model_wrap, sigmas):
        highest, sigma = float(model_wrap.inner_model.model_sampling.sigma_max), float(sigmas[0])
        return sigma > highest or math.isclose(highest, sigma, rel_tol=1e-05)

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        model_sampling = model_wrap.inner_model.model_sampling
        extra_args["denoise_mask"] = denoise_mask
        model_k = KSamplerX0Inpaint(model_wrap, sigmas)
        model_k.latent_image, model_k.noise = latent_image, noise

        def k_callback(step):
            if callback is not None:
                callback(step["i"], step["denoised"], step["x"], len(sigmas) - 1)

        x = model_sampling.noise_scaling(sigmas[0], noise, latent_image, self.max_denoise(model_wrap, sigmas))
        x = self.sampler_function(
            model_k, x, sigmas, extra_args=extra_args, callback=k_callback, disable=disable_pbar, **self.extra_options
        )
        return model_sampling.inverse_noise_scaling(sigmas[-1], x)


def ksampler(sampler_name, extra_options={}, inpaint_options={}):
    return KSAMPLER(SAMPLERS[sampler_name], extra_options, inpaint_options)


sampler_object = ksampler


def calculate_sigmas(model_sampling, scheduler_name, steps):
    table = model_sampling.sigmas
    if scheduler_name == "simple":
        return torch.tensor([float(table[-1 - int(i * len(table) / steps)]) for i in range(steps)] + [0.0])
    if scheduler_name != "normal":
        raise ValueError(f"error invalid scheduler {scheduler_name}")
    start, end = model_sampling.timestep(model_sampling.sigma_max), model_sampling.timestep(model_sampling.sigma_min)
    ends_at_zero = math.isclose(float(model_sampling.sigma(end)), 0, abs_tol=1e-5)
    sigmas = [float(model_sampling.sigma(t)) for t in torch.linspace(start, end, steps + ends_at_zero)]
    return torch.tensor(sigmas if ends_at_zero else [*sigmas, 0.0])


def _resolve_entry(model, entry, size, device):
    """Percentages to latent pixels, masks to the latent's size, start and end percent to sigmas."""
    entry, dims = dict(entry), len(size)
    if "area" in entry and entry["area"][0] == "percentage":
        share = entry["area"][1:]
        entry["area"] = (
            *(max(1, round(share[d] * size[d])) for d in range(dims)),
            *(round(share[dims + d] * size[d]) for d in range(dims)),
        )
    if "mask" in entry:
        mask = entry["mask"].to(device)
        mask = mask.unsqueeze(0) if mask.ndim == dims else mask  # (b, h, w)
        if mask.shape[1:] != size:
            mask = torch.nn.functional.interpolate(mask.unsqueeze(1), size=tuple(size), mode="bilinear").squeeze(1)
        entry["mask"] = mask
    for percent, sigma in (("start_percent", "timestep_start"), ("end_percent", "timestep_end")):
        if percent in entry:
            entry[sigma] = model.model_sampling.percent_to_sigma(entry[percent])
    return entry


def _add_counterpart(entries, entry):
    """Give the other branch an entry with the same area. It keeps the uuid of the entry that it is a counterpart of."""

    def covers(other):
        return all(
            b <= a and a + size <= b + bigger
            for size, a, bigger, b in zip(
                area[: len(area) // 2], area[len(area) // 2 :], other[: len(other) // 2], other[len(other) // 2 :]
            )
        )

    area, best = entry["area"], None
    for other in entries:
        if "area" not in other:
            best = other if best is None else best
        elif covers(other["area"]):
            pixels = math.prod(other["area"][: len(area) // 2])
            if best is None or "area" not in best or math.prod(best["area"][: len(area) // 2]) > pixels:
                best = other
    if best is not None and best.get("area") != area:
        entries.append({**entry, "model_conds": dict(best["model_conds"])})


def _share_control(positive, entries):
    """Entries without a ControlNet get the positive's, where its node asked for that."""
    controls = [c["control"] for c in positive if "area" not in c and c.get("control_apply_to_uncond")]
    others = [n for n, c in enumerate(entries) if "area" not in c and c.get("control") is None]
    if any("area" not in c and c.get("control") is not None for c in entries):
        return
    for n, control in enumerate(controls):
        target = others[n % len(others)]
        entries[target] = {**entries[target], "control": control}


def process_conds(model, noise, conds, device, latent_image=None, denoise_mask=None, seed=None):
    """Prepare each entry for this latent, and give "positive" and the others entries of equal areas."""
    given = {"noise": noise, "device": device, "latent_image": latent_image, "denoise_mask": denoise_mask, "seed": seed}
    for kind, entries in conds.items():
        entries = [_resolve_entry(model, entry, noise.shape[2:], device) for entry in entries]
        for entry in entries:
            model_conds = model.extra_conds(**{**given, "prompt_type": kind, **entry})
            entry["model_conds"] = {**entry["model_conds"], **model_conds}
        conds[kind] = entries
    for kind, entries in conds.items():
        for entry in entries:
            for other in conds:
                if other != kind and "area" in entry:
                    _add_counterpart(conds[other], entry)
    for kind, entries in conds.items():
        for entry in entries:
            if hasattr(entry.get("control"), "pre_run"):
                entry["control"].pre_run(model, model.model_sampling.percent_to_sigma)
        if kind != "positive" and "positive" in conds:
            _share_control(conds["positive"], entries)
    return conds


def _fit_mask(mask, shape):
    """A noise mask of any size as (b, c, h, w) of the latent."""
    mask = mask.reshape(-1, 1, *mask.shape[-2:])
    mask = torch.nn.functional.interpolate(mask, size=tuple(shape[2:]), mode="bilinear")
    return mask.repeat(math.ceil(shape[0] / mask.shape[0]), shape[1], 1, 1)[: shape[0]].float()


class CFGGuider:
    def __init__(self, model_patcher):
        self.model_patcher = model_patcher
        self.model_options = model_patcher.model_options
        self.original_conds = {}
        self.cfg = 1.0

    def set_conds(self, positive, negative):
        self.inner_set_conds({"positive": positive, "negative": negative})

    def inner_set_conds(self, conds):
        """From here on each entry has a uuid, the same in every later run of this guider."""
        for kind, entries in conds.items():
            self.original_conds[kind] = [
                {
                    **extras,
                    **({} if tensor is None else {"cross_attn": tensor}),
                    "model_conds": extras.get("model_conds", {}),
                    "uuid": uuid.uuid4(),
                }
                for tensor, extras in entries
            ]

    def set_cfg(self, cfg):
        self.cfg = cfg

    def __call__(self, x, timestep, model_options={}, seed=None):
        return self._wrapped(self.predict_noise, self, WrappersMP.PREDICT_NOISE)(x, timestep, model_options, seed)

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        return sampling_function(
            self.inner_model,
            x,
            timestep,
            self.conds.get("negative"),
            self.conds.get("positive"),
            self.cfg,
            model_options=model_options,
            seed=seed,
        )

    def _wrapped(self, function, owner, wrapper_type):
        wrappers = get_all_wrappers(wrapper_type, self.model_options, is_model_options=True)
        return WrapperExecutor.new_class_executor(function, owner, wrappers).execute

    def sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ):
        if len(sigmas) == 0:
            return latent_image
        if denoise_mask is not None:
            denoise_mask = _fit_mask(denoise_mask.to(self.model_patcher.load_device), noise.shape)
        self.conds = {kind: [dict(entry) for entry in entries] for kind, entries in self.original_conds.items()}
        given_options = self.model_options
        self.model_options = comfy.model_patcher.create_model_options_clone(given_options)
        wrappers = self.model_options["transformer_options"].setdefault("wrappers", {})
        merge_nested_dicts(wrappers, self.model_patcher.wrappers, copy_dict1=False)
        try:
            output = self._wrapped(self.outer_sample, self, WrappersMP.OUTER_SAMPLE)(
                noise,
                latent_image,
                sampler,
                sigmas,
                denoise_mask,
                callback,
                disable_pbar,
                seed,
                latent_shapes=[latent_image.shape],
            )
        finally:
            self.model_options = given_options
        del self.conds
        return output

    def outer_sample(
        self,
        noise,
        latent_image,
        sampler,
        sigmas,
        denoise_mask=None,
        callback=None,
        disable_pbar=False,
        seed=None,
        latent_shapes=None,
    ):
        device = self.model_patcher.load_device
        self.inner_model = self.model_patcher.model
        try:
            self.model_patcher.pre_run()
            output = self.inner_sample(
                noise.to(device, torch.float32),
                latent_image.to(device, torch.float32),
                device,
                sampler,
                sigmas.to(device),
                denoise_mask,
                callback,
                disable_pbar,
                seed,
            )
        finally:
            self.model_patcher.cleanup()
        del self.inner_model
        return output

    def inner_sample(self, noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed):
        latent_image = self.inner_model.process_latent_in(latent_image)
        self.conds = process_conds(self.inner_model, noise, self.conds, device, latent_image, denoise_mask, seed)
        model_options = comfy.model_patcher.create_model_options_clone(self.model_options)
        model_options["transformer_options"]["sample_sigmas"] = sigmas
        samples = self._wrapped(sampler.sample, sampler, WrappersMP.SAMPLER_SAMPLE)(
            self,
            sigmas,
            {"model_options": model_options, "seed": seed},
            callback,
            noise,
            latent_image,
            denoise_mask,
            disable_pbar,
        )
        return self.inner_model.process_latent_out(samples.to(torch.float32))


def sample(
    model,
    noise,
    positive,
    negative,
    cfg,
    device,
    sampler,
    sigmas,
    model_options={},
    latent_image=None,
    denoise_mask=None,
    callback=None,
    disable_pbar=False,
    seed=None,
):
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)
