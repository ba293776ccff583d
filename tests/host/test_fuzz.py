"""Random graphs: guidance may never fail, nor bring in what is not finite, where the run without it is fine.

SAG_FUZZ sets how many graphs are tried (a full run: 300), SAG_FUZZ_SEED the first of them.
"""

import os
import random

import pytest
import torch
from contract import latent
from graphs import GUIDERS, OTHERS, guider, sample_with

GRAPHS = int(os.environ.get("SAG_FUZZ", "16"))
FIRST = int(os.environ.get("SAG_FUZZ_SEED", "0"))
SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_sde", "ddim", "uni_pc", "lcm", "heun", "euler_cfg_pp"]
FAMILIES = ["sd15", "sd15", "sd2", "sdxl", "refiner", "ssd1b", "vega"]


@pytest.fixture(scope="module")
def advanced(node_classes):
    return node_classes["SAGSelfAttentionGuidanceAdvanced"]


def entries(rng, host, size):
    """One to three conditioning entries with areas, masks, strengths and ranges."""
    found = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        extras = {}
        if rng.random() < 0.3:
            h, w = (rng.randint(8, max(8, side)) for side in size)
            extras["area"] = (min(h, size[0]), min(w, size[1]), rng.randint(0, 3), rng.randint(0, 3))
        if rng.random() < 0.3:
            extras["strength"] = rng.choice([0.3, 1.5])
        if rng.random() < 0.3:
            extras["mask"] = torch.rand(1, *size, generator=torch.Generator().manual_seed(rng.randrange(999)))
            extras["set_area_to_bounds"] = rng.random() < 0.5
        if rng.random() < 0.2:
            extras["start_percent"], extras["end_percent"] = sorted(rng.random() for _ in range(2))
        if rng.random() < 0.1:
            extras["default"] = True
        found += host.conditioning(tokens=rng.choice([1, 8, 13, 40]), seed=rng.randrange(99), **extras)
    return found


def settings(rng, guide, advanced):
    """The plain node or the Advanced one, with random settings."""
    if rng.random() < 0.5:
        return lambda model: guide(model, scale=rng.choice([-1.0, 0.1, 0.75, 3.0]), blur_sigma=rng.choice([0.3, 1, 6]))
    choices = {
        "scale": [0.75, 2.0],
        "blur_sigma": [0.5, 1.0, 3.0],
        "mask_threshold": [0.0, 1.0, 1.3],
        "start_percent": [0.0, 0.3],
        "end_percent": [0.6, 1.0],
        "scale_curve": None,
        "mask_mode": None,
        "mask_upsampling": None,
        "branch": None,
        "rescale_mode": None,
        "blur_kernel": [0, 9],
        "mask_feather": [0.0, 1.5],
        "rescale": [0.0, 0.7],
        "projection": [0.0, 1.0],
        "apply_every": [1, 2],
        "reuse": [False, True],
    }
    types = advanced.INPUT_TYPES()
    options = {**types["required"], **types.get("optional", {})}
    chosen = {}
    for name, (kind, extra) in ((name, spec) for name, spec in options.items() if name not in ("model", "mask")):
        values = choices.get(name)
        if values is None:
            values = extra.get("options") or (kind if isinstance(kind, list) else [extra.get("default")])
        value = rng.choice(values)
        chosen[name] = bool(value) if kind == "BOOLEAN" else value
    if rng.random() < 0.3:
        chosen["mask"] = torch.rand(rng.choice([1, 2]), rng.randint(4, 40), rng.randint(4, 40))
    return lambda model: advanced.execute(model=model, **chosen).args[0]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + GRAPHS))
def test_random_graph(host, guide, advanced, seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    size = rng.randint(4, 30), rng.randint(4, 30)
    model = host.unet(
        family=rng.choice(FAMILIES),
        channels=64,
        prediction=rng.choice(["eps", "v"]),
        dtype=rng.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16]),
    )
    with torch.no_grad():
        model.model.diffusion_model.out[-1].weight.mul_(0.05)
    names = rng.sample(sorted(set(OTHERS) - {"NAG"}), rng.choice([0, 1, 2]))
    others = [OTHERS[name] for name in names]
    guidances = [settings(rng, guide, advanced) for _ in range(rng.choice([1, 1, 2]))]
    nodes = [(other, False) for other in others] + [(guidance, True) for guidance in guidances]
    rng.shuffle(nodes)
    how = {
        "cfg": rng.choice([1.0, 1.0, 3.0, 7.5]),
        "steps": rng.choice([1, 2, 3]),
        "sampler": rng.choice(SAMPLERS),
        "scheduler": rng.choice(["normal", "karras", "sgm_uniform", "beta"]),
        "seed": seed,
        "guider": rng.choice(["cfg", "cfg", "cfg", "basic"]),
        "denoise": rng.choice([1.0, 1.0, 0.4]),
    }
    positive, negative = entries(rng, host, size), entries(rng, host, size)
    start = latent(*size, batch=rng.choice([1, 1, 2]))
    kind = rng.choice([None, None, *GUIDERS])
    memory = rng.choice([None, None, 2**20])

    def run(guided):
        patched = model
        for apply, is_guidance in nodes:
            if guided or not is_guidance:
                patched = apply(patched)

        def sample():
            if kind is not None:
                return sample_with(guider(kind, patched, host), size, how["steps"], how["sampler"])
            return host.sample(patched, positive, negative, start, **how)

        if memory is None:
            return sample()
        with host.free_memory(memory):
            return sample()

    what = f"seed {seed}: {size} {names} {kind} {how}"
    try:
        plain = run(False)
    except Exception as problem:
        pytest.skip(f"the run without guidance fails: {type(problem).__name__}")
    ours = run(True)
    if plain.isfinite().all() and plain.abs().max() < 1e4:
        assert ours.isfinite().all(), what
    assert ours.shape == plain.shape, what
