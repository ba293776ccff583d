"""The settings of the presets, as inputs of the Advanced node; those that are not named stay at their defaults."""

PRESETS = {
    "the paper": {"scale": 0.75, "blur_sigma": 1.0, "difference": "noise"},
    "sharper": {"scale": 1.0, "blur_sigma": 1.0, "difference": "image"},
    "fast": {"scale": 1.0, "blur_sigma": 1.0, "difference": "image", "apply_every": 3, "reuse": True},
}
