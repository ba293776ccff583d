"""What the demo and the comparison on a checkpoint draw."""

from dataclasses import asdict

from sag_core import PRESETS as ALL
from sag_core import Settings

PLAIN, ADVANCED = "SAGSelfAttentionGuidance", "SAGSelfAttentionGuidanceAdvanced"  # the nodes
SHARPER = ALL["sharper"]
PRESETS = {
    "the paper": {name: asdict(Settings())[name] for name in SHARPER},
    **{name: ALL[name] for name in ("sharper", "fast", "free")},
}
