"""The nodes, as ComfyUI loads them."""

from comfy_api.latest import ComfyExtension

from .adapter import warn_of_folder
from .compare import SAGCompareGrid
from .demo_model import SAGDemoModel
from .guidance import SAGSelfAttentionGuidance, SAGSelfAttentionGuidanceAdvanced
from .presets import SAGPreset
from .preview import SAGMaskPreview
from .sweep import SAGSweep


class SelfAttentionGuidanceExtension(ComfyExtension):
    async def on_load(self):
        warn_of_folder("SAGSelfAttentionGuidance")

    async def get_node_list(self):
        return [
            SAGSelfAttentionGuidance,
            SAGSelfAttentionGuidanceAdvanced,
            SAGPreset,
            SAGMaskPreview,
            SAGSweep,
            SAGCompareGrid,
            SAGDemoModel,
        ]
