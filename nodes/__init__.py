"""The nodes, as ComfyUI loads them."""

from comfy_api.latest import ComfyExtension

from .demo_model import SAGDemoModel
from .guidance import SAGSelfAttentionGuidance, SAGSelfAttentionGuidanceAdvanced


class SelfAttentionGuidanceExtension(ComfyExtension):
    async def get_node_list(self):
        return [SAGSelfAttentionGuidance, SAGSelfAttentionGuidanceAdvanced, SAGDemoModel]
