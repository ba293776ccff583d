"""The nodes, as ComfyUI loads them."""

from comfy_api.latest import ComfyExtension

from .compare import SAGCompareGrid
from .demo_model import SAGDemoModel
from .guidance import SAGSelfAttentionGuidance, SAGSelfAttentionGuidanceAdvanced
from .presets import SAGPreset
from .preview import SAGMaskPreview
from .sweep import SAGSweep


class SelfAttentionGuidanceExtension(ComfyExtension):
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
