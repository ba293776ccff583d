"""Where a model family keeps its image tokens: a line per family.

A layout tells the recorder which of the model's attention calls is which block's self-attention, which of its tokens
are image tokens, and on which grid they lie. Everything else in the recorder is the same for every family.

layout.py       what a layout is, and what it is given to read
unet.py         UNets, where the host names the block and its grid
transformer.py  transformers, where blocks are counted
"""

from typing import Optional

from torch import nn

from .layout import Block, Layout, Network, NetworkCall, Tokens
from .transformer import CrossLayout, JointLayout
from .unet import UNetLayout

__all__ = ["Block", "Layout", "NetworkCall", "Tokens", "layout_for"]


def _hunyuan_video_end(network: Network) -> str:
    """Older hosts put the image before the text, newer ones behind it."""
    return "first" if getattr(network.double_blocks[0], "flipped_img_txt", False) else "last"


def _wan_calls(network: Network) -> int:
    """Image-to-video models have a second cross-attention, to an image's embedding."""
    return 3 if hasattr(network.blocks[0].cross_attn, "k_img") else 2


def _cascade_depth(network: nn.Module) -> int:
    return sum(hasattr(module, "self_attn") and hasattr(module, "attention") for module in network.modules())


_FLUX = ("double_blocks", "single_blocks")
_COSMOS = ("patch_temporal", "patch_spatial", "patch_spatial")

# fmt: off
# A subclass of a transformer may read its tokens in another order, so a line holds for its very class.
LAYOUTS: dict[str, Layout] = {
    "comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel": UNetLayout(),
    "comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper": JointLayout(("joint_blocks",)),
    "comfy.ldm.flux.model.Flux": JointLayout(_FLUX, references=("ref_latents",)),
    "comfy.ldm.chroma.model.Chroma": JointLayout(_FLUX),
    "comfy.ldm.chroma_radiance.model.ChromaRadiance": JointLayout(_FLUX),
    "comfy.ldm.aura.mmdit.MMDiT": JointLayout(("double_layers", "single_layers")),
    "comfy.ldm.lumina.model.NextDiT": JointLayout(
        ("layers",), multiple="pad_tokens_multiple", prelude=("context_refiner", "noise_refiner"),
        unknown_with=("siglip_feats",),
    ),
    "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel": JointLayout(
        ("transformer_blocks",), references=("ref_latents",)
    ),
    "comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel": JointLayout(
        ("layers",), prelude=("context_refiner", "noise_refiner"),
        prelude_with=(("ref_latents", "ref_image_refiner"),),
    ),
    "comfy.ldm.hidream.model.HiDreamImageTransformer2DModel": JointLayout(
        ("double_stream_blocks", "single_stream_blocks"), image="first", unknown_with=("image_cond",)
    ),
    "comfy.ldm.hunyuan_video.model.HunyuanVideo": JointLayout(
        _FLUX, image=_hunyuan_video_end, prelude=("txt_in.individual_token_refiner.blocks",),
        unknown_with=("ref_latent",),
    ),
    "comfy.ldm.wan.model.WanModel": CrossLayout(
        references=("reference_latent",), references_need="ref_conv", calls=_wan_calls
    ),
    "comfy.ldm.lightricks.model.LTXVModel": CrossLayout(("transformer_blocks",), patch=(1, 1, 1)),
    "comfy.ldm.cosmos.model.GeneralDIT": CrossLayout(patch=_COSMOS),
    "comfy.ldm.cosmos.predict2.MiniTrainDIT": CrossLayout(patch=_COSMOS),
    "comfy.ldm.anima.model.Anima": CrossLayout(patch=_COSMOS),
    "comfy.ldm.kandinsky5.model.Kandinsky5": CrossLayout(
        ("visual_transformer_blocks",), prelude=("text_transformer_blocks",)
    ),
    "comfy.ldm.cascade.stage_c.StageC": CrossLayout(_cascade_depth, patch=(1, 1), calls=1, text_keys=True),
}
# fmt: on


def layout_for(network: nn.Module) -> Optional[Layout]:
    """The layout of a diffusion network's family, None for a family that is not in the table."""
    kind = type(getattr(network, "_orig_mod", network))  # torch.compile wraps the network
    for base in kind.__mro__:
        layout = LAYOUTS.get(f"{base.__module__}.{base.__qualname__}")
        if layout is not None and (base is kind or isinstance(layout, UNetLayout)):
            return layout
    return None
