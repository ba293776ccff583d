"""Settings under a name."""

from typing import Any

# What differs from the defaults of Settings. Saved workflows hold the name alone, so a preset never changes under its
# name: a better one gets a new name, and the old one stays.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "sharper": {"scale": 1.0, "blur_sigma": 3.0, "difference": "image", "start_percent": 0.2, "end_percent": 0.8},
    "fast": {
        "scale": 1.0,
        "blur_sigma": 3.0,
        "difference": "image",
        "start_percent": 0.2,
        "end_percent": 0.8,
        "apply_every": 3,
        "reuse": True,
    },
    "free": {"scale": 0.2, "blur_sigma": 2.0, "difference": "detail", "mask_mode": "global_blur"},
    "paper ADM": {"scale": 0.5, "blur_sigma": 9.0, "blur_kernel": 31, "attention_blocks": "output.2"},
    "diffusers": {"scale": 0.75, "blur_sigma": 1.0, "blur_kernel": 9},
    "ComfyUI built-in": {"scale": 0.5, "blur_sigma": 2.0, "blur_kernel": 9, "branch": "unconditional"},
    "gentle for SDXL": {"scale": 0.4, "blur_sigma": 0.5, "scale_curve": "cosine_fade_out"},
}
