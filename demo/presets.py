"""The settings of the presets, as inputs of the Advanced node; those that are not named stay at their defaults."""

PLAIN, ADVANCED = "SAGSelfAttentionGuidance", "SAGSelfAttentionGuidanceAdvanced"  # the nodes
SHARPER = {"scale": 1.0, "blur_sigma": 3.0, "difference": "image", "start_percent": 0.2, "end_percent": 0.8}
PRESETS = {
    "the paper": {"scale": 0.75, "blur_sigma": 1.0, "difference": "noise"},
    "sharper": SHARPER,
    "fast": {**SHARPER, "apply_every": 3, "reuse": True},
    "free": {"scale": 0.2, "blur_sigma": 2.0, "difference": "detail", "mask_mode": "global_blur"},
}
