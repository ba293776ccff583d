"""Where a model family keeps its image tokens: a line per family.

A layout tells the recorder which of the model's attention calls is which block's self-attention, which of its tokens
are image tokens, and on which grid they lie. Everything else in the recorder is the same for every family.

layout.py       what a layout is, and what it is given to read
unet.py         UNets, where the host names the block and its grid
transformer.py  transformers, where blocks are counted
"""

from typing import Any, Optional

from torch import nn

from .layout import Block, Layout, Network, NetworkCall, Tokens
from .transformer import CrossLayout, JointLayout, KeysLayout
from .unet import UNetLayout

__all__ = ["Block", "Layout", "NetworkCall", "Tokens", "layout_for"]


def _hunyuan_video_end(network: Network) -> str:
    """Older hosts put the image before the text, newer ones behind it."""
    return "first" if getattr(network.double_blocks[0], "flipped_img_txt", False) else "last"


def _wan_calls(call: NetworkCall) -> int:
    """Image-to-video models have a second cross-attention, to an image's embedding."""
    return 3 if hasattr(call.network.blocks[0].cross_attn, "k_img") else 2


def _vace_calls(call: NetworkCall) -> int:
    """Behind some blocks, VACE's own blocks read its streams, as many tokens as the image has."""
    streams = call.arguments["vace_context"].shape[1]
    return 2 * (1 + streams) if call.located - 1 in call.network.vace_layers_mapping else 2


def _cascade_depth(network: nn.Module) -> int:
    return sum(hasattr(module, "self_attn") and hasattr(module, "attention") for module in network.modules())


_FLUX = ("double_blocks", "single_blocks")
_COGVIDEO = ("patch_size_t", "patch_size", "patch_size")
_COSMOS = ("patch_temporal", "patch_spatial", "patch_spatial")
_OMNIGEN2: dict[str, Any] = dict(
    before=("ref_latents",), prelude=("context_refiner", "noise_refiner"),
    prelude_with=(("ref_latents", "ref_image_refiner"),),
)  # fmt: skip
_LUMINA = JointLayout(
    ("layers",), multiple="pad_tokens_multiple", prelude=("context_refiner", "noise_refiner"),
    unknown_with=("siglip_feats",),
)  # fmt: skip
_LTX = CrossLayout(("transformer_blocks",), patch=(1, 1, 1))
_WAN = CrossLayout(before=("reference_latent",), needs=("ref_conv",), others=True, calls=_wan_calls)

# fmt: off
# A subclass of a transformer may read its tokens in another order, so a line holds for its very class.
LAYOUTS: dict[str, Layout] = {
    "comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel": UNetLayout(),
    "comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper": JointLayout(("joint_blocks",)),
    "comfy.ldm.flux.model.Flux": JointLayout(_FLUX, behind=("ref_latents",)),
    "comfy.ldm.chroma.model.Chroma": JointLayout(_FLUX),
    "comfy.ldm.chroma_radiance.model.ChromaRadiance": JointLayout(_FLUX),
    "comfy.ldm.aura.mmdit.MMDiT": JointLayout(("double_layers", "single_layers")),
    "comfy.ldm.lumina.model.NextDiT": _LUMINA,
    "comfy.ldm.lumina.model.NextDiTPixelSpace": _LUMINA,
    "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel": JointLayout(
        ("transformer_blocks",), behind=("ref_latents",)
    ),
    "comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel": JointLayout(("layers",), **_OMNIGEN2),
    "comfy.ldm.boogu.model.BooguTransformer2DModel": JointLayout(
        ("double_stream_layers", "single_stream_layers"), **_OMNIGEN2
    ),
    "comfy.ldm.krea2.model.SingleStreamDiT": JointLayout(
        patch="patch", behind=("ref_latents",), needs=("default_ref_method", "ref_latents_method"),
        prelude=("txtfusion.layerwise_blocks", "txtfusion.refiner_blocks"),
    ),
    "comfy.ldm.ideogram4.model.Ideogram4Transformer2DModel": CrossLayout(
        ("layers",), patch=(1, 1), image="last", calls=1, others=True
    ),
    "comfy.ldm.mage_flow.model.MageFlowTransformer2DModel": JointLayout(
        ("transformer_blocks",), behind=("ref_latents",)
    ),
    "comfy.ldm.joyimage.model.JoyImageTransformer3DModel": JointLayout(
        ("double_blocks",), image="first", behind=("ref_latents",)
    ),
    "comfy.ldm.lens.model.LensTransformer2DModel": JointLayout(("transformer_blocks",), patch=(1, 1), image="first"),
    "comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel": JointLayout(patch=_COGVIDEO),
    "comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint": JointLayout(image="first"),
    "comfy.ldm.pixeldit.model.PixDiT_T2I": JointLayout(("patch_blocks",)),
    "comfy.ldm.pixeldit.pid.PidNet": JointLayout(("patch_blocks",)),
    "comfy.ldm.hidream_o1.model.HiDreamO1Transformer": KeysLayout(
        ("language_model.layers",), image="last", behind=("ref_patches",)
    ),
    "comfy.ldm.hidream.model.HiDreamImageTransformer2DModel": JointLayout(
        ("double_stream_blocks", "single_stream_blocks"), image="first", unknown_with=("image_cond",)
    ),
    "comfy.ldm.hunyuan_video.model.HunyuanVideo": JointLayout(
        _FLUX, image=_hunyuan_video_end, before=("ref_latent",), prelude=("txt_in.individual_token_refiner.blocks",)
    ),
    "comfy.ldm.wan.model.WanModel": _WAN,
    "comfy.ldm.wan.model.VaceWanModel": CrossLayout(calls=_vace_calls),
    "comfy.ldm.wan.model.CameraWanModel": _WAN,
    "comfy.ldm.wan.model.HumoWanModel": CrossLayout(others=True),
    "comfy.ldm.wan.model.WanModel_S2V": CrossLayout(others=True),
    "comfy.ldm.wan.model.SCAILWanModel": CrossLayout(before=("reference_latent",), others=True),
    "comfy.ldm.wan.model.SCAIL2WanModel": CrossLayout(before=("reference_latent",), others=True),
    "comfy.ldm.wan.model_animate.AnimateWanModel": _WAN,
    "comfy.ldm.lightricks.model.LTXVModel": _LTX,
    "comfy.ldm.lightricks.av_model.LTXAVModel": _LTX,
    "comfy.ldm.cosmos.model.GeneralDIT": CrossLayout(patch=_COSMOS),
    "comfy.ldm.cosmos.predict2.MiniTrainDIT": CrossLayout(patch=_COSMOS),
    "comfy.ldm.anima.model.Anima": CrossLayout(patch=_COSMOS),
    "comfy.ldm.kandinsky5.model.Kandinsky5": CrossLayout(
        ("visual_transformer_blocks",), prelude=("text_transformer_blocks",)
    ),
    "comfy.ldm.cascade.stage_c.StageC": KeysLayout(_cascade_depth, patch=(1, 1), image="first"),
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
