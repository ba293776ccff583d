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
    async def get_node_list(self):
        warn_of_folder("SAGSelfAttentionGuidance")  # not in on_load, which older hosts do not call
        return [
            SAGSelfAttentionGuidance,
            SAGSelfAttentionGuidanceAdvanced,
            SAGPreset,
            SAGMaskPreview,
            SAGSweep,
            SAGCompareGrid,
            SAGDemoModel,
        ]
