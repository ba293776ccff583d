"""Self-Attention Guidance for ComfyUI.

Nothing of the host is imported here, so that tools which import a repository's root (pytest among them) can do so
without ComfyUI. The nodes are imported when the host asks for them.
"""

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    from .nodes import SelfAttentionGuidanceExtension

    return SelfAttentionGuidanceExtension()
