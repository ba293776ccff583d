"""Small random-weight models of every family, built from ComfyUI's own classes, and what is known of their tokens.

What a line says of a family's tokens is written down a second time here, by other means than the pack's table.
"""

import inspect
from dataclasses import dataclass, field, is_dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Callable, Optional

import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from real_host import randomise

ORDERS = pytest.mark.parametrize("order", ["guided first", "guided last"])  # of guidance and another node
TEXT = 11  # tokens of text in every conditioning
ALL_TEXT = torch.ones(1, TEXT, dtype=torch.int64)  # an attention mask that hides nothing
PADDED_TEXT = (torch.arange(TEXT) < 8).long()[None]
FLUX = dict(
    image_model="flux", in_channels=16, out_channels=16, vec_in_dim=8, context_in_dim=16, hidden_size=32,
    mlp_ratio=2.0, num_heads=2, depth=2, depth_single_blocks=4, axes_dim=[4, 6, 6], theta=10000, patch_size=2,
    qkv_bias=True, guidance_embed=True, txt_ids_dims=[],
)  # fmt: skip
CHROMA = dict(
    image_model="chroma", in_channels=64, out_channels=64, vec_in_dim=8, context_in_dim=16, hidden_size=32,
    mlp_ratio=2.0, num_heads=2, depth=2, depth_single_blocks=4, axes_dim=[4, 6, 6], theta=10000, patch_size=2,
    qkv_bias=True, in_dim=64, out_dim=32, hidden_dim=32, n_layers=2, txt_ids_dims=[],
)  # fmt: skip
LUMINA = dict(
    image_model="lumina2", patch_size=2, in_channels=16, dim=48, n_layers=6, n_refiner_layers=2, n_heads=4,
    n_kv_heads=2, multiple_of=16, ffn_dim_multiplier=1.0, qk_norm=True, cap_feat_dim=16, axes_dims=[4, 4, 4],
    axes_lens=[300, 64, 64],
)  # fmt: skip
WAN = dict(
    image_model="wan2.1", model_type="t2v", patch_size=(1, 2, 2), in_dim=16, dim=48, ffn_dim=48, freq_dim=16,
    text_dim=16, out_dim=16, num_heads=4, num_layers=6,
)  # fmt: skip
HUNYUAN_VIDEO = dict(
    image_model="hunyuan_video", in_channels=16, out_channels=16, vec_in_dim=8, context_in_dim=16, hidden_size=32,
    mlp_ratio=2.0, num_heads=2, depth=2, depth_single_blocks=4, axes_dim=[4, 6, 6], theta=256, patch_size=[1, 2, 2],
    qkv_bias=True, guidance_embed=True, byt5=False, meanflow=False, use_cond_type_embedding=False,
    vision_in_dim=None, meanflow_sum=False,
)  # fmt: skip
HUNYUAN_VIDEO_15 = {
    **HUNYUAN_VIDEO, "in_channels": 65, "out_channels": 32, "patch_size": [1, 2, 2], "vec_in_dim": None,
    "guidance_embed": False, "byt5": True, "use_cond_type_embedding": True, "vision_in_dim": 16,
}  # fmt: skip
PREDICT2 = dict(
    image_model="cosmos_predict2", max_img_h=32, max_img_w=32, max_frames=16, in_channels=16, out_channels=16,
    patch_spatial=2, patch_temporal=1, concat_padding_mask=True, model_channels=48, num_blocks=6, num_heads=2,
    crossattn_emb_channels=16, pos_emb_cls="rope3d", pos_emb_learnable=True, pos_emb_interpolation="crop",
    use_adaln_lora=True, adaln_lora_dim=8,
)  # fmt: skip
KANDINSKY = dict(
    image_model="kandinsky5", in_visual_dim=16, out_visual_dim=16, in_text_dim=16, in_text_dim2=8, time_dim=16,
    model_dim=48, ff_dim=48, visual_embed_dim=132, num_text_blocks=2, num_visual_blocks=6, axes_dims=(4, 4, 4),
)  # fmt: skip

QWEN = dict(
    image_model="qwen_image", in_channels=64, out_channels=16, num_layers=6, attention_head_dim=16,
    num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
)  # fmt: skip
OMNIGEN2 = dict(
    image_model="omnigen2", hidden_size=48, num_layers=6, num_refiner_layers=2, num_attention_heads=4, num_kv_heads=2,
    multiple_of=16, axes_dim_rope=(4, 4, 4), axes_lens=(300, 64, 64), text_feat_dim=16,
)  # fmt: skip
BOOGU = {
    **{name: value for name, value in OMNIGEN2.items() if name != "text_feat_dim"},
    "image_model": "boogu", "num_double_stream_layers": 2, "num_layers": 4, "instruction_feat_dim": 16,
}  # fmt: skip
KREA2 = dict(
    image_model="krea2", features=64, tdim=16, txtdim=16, heads=4, kvheads=2, multiplier=2, layers=6, patch=2,
    channels=16, txtlayers=2, txtheads=2, txtkvheads=2,
)  # fmt: skip
IDEOGRAM = dict(
    image_model="ideogram4", in_channels=128, num_layers=6, num_attention_heads=2, attention_head_dim=16,
    intermediate_size=32, adaln_dim=16, llm_features_dim=16, mrope_section=(4, 2, 2),
)  # fmt: skip
COGVIDEO = dict(
    image_model="cogvideox", num_attention_heads=2, attention_head_dim=16, in_channels=16, out_channels=16,
    time_embed_dim=16, text_embed_dim=16, num_layers=6, sample_width=14, sample_height=10, sample_frames=9,
    patch_size=2, max_text_seq_length=TEXT, use_rotary_positional_embeddings=True,
)  # fmt: skip
PIXELDIT = dict(
    image_model="pixeldit_t2i", num_groups=2, hidden_size=32, pixel_hidden_size=8, pixel_attn_hidden_size=32,
    pixel_num_groups=2, patch_depth=6, pixel_depth=1, patch_size=16, txt_embed_dim=16, txt_max_length=TEXT,
)  # fmt: skip
LTXAV = dict(
    image_model="ltxav", in_channels=128, cross_attention_dim=48, attention_head_dim=24, num_attention_heads=2,
    audio_cross_attention_dim=48, audio_attention_head_dim=24, audio_num_attention_heads=2, caption_channels=48,
    num_layers=6, connector_attention_head_dim=24, connector_num_attention_heads=2, connector_num_layers=1,
)  # fmt: skip


@dataclass
class Family:
    """A family, and where a reader of the model's source finds its image tokens.

    Attributes:
        name: what the support table calls it.
        config: the class in comfy.supported_models, absent in hosts that do not have the family.
        network: arguments of the network.
        latent: (c, h, w) or (c, t, h, w), no multiple of the patch where the model pads.
        patch: sides of a patch along (h, w) or (t, h, w).
        first: the first image token in the sequence of keys, from the sequence's length and the image tokens.
        call: which attention call of a forward pass is the self-attention of a block.
        chosen: the blocks that are read unless a user says otherwise, and the calls that are their self-attention.
        batch: latents at once; of a video UNet, frames.
        sound: (c, t, f) of a latent of sound that is packed behind the video's; empty for none.
        mixes: whether convolutions spread a patch over its neighbours before any attention.
        pooled: width of the pooled text, 0 for none.
        extras: further entries of the conditioning.
    """

    name: str
    config: str
    network: dict
    latent: tuple
    patch: tuple
    first: Callable = lambda length, image: length - image
    call: Callable = lambda block: block
    chosen: Optional[dict] = None
    batch: int = 2
    sound: tuple = ()
    mixes: bool = False
    pooled: int = 8
    text_dim: int = 16
    extras: dict = field(default_factory=dict)
    model: Optional[Callable] = None

    def __post_init__(self):
        if self.chosen is None:  # the middle third of six blocks
            self.chosen = {("block", number): self.call(number) for number in (2, 3)}

    @property
    def grid(self):
        return tuple(-(-side // patch) for side, patch in zip(self.latent[1:], self.patch))


def image_first(length, image):
    return 0


def hunyuan_first(length, image):
    """Older hosts put the image before the text, newer ones behind it."""
    from comfy.ldm.flux.layers import DoubleStreamBlock

    older = "flipped_img_txt" in inspect.signature(DoubleStreamBlock).parameters
    return 0 if older else length - image


def random(*shape, seed=5):
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


def references(*shapes):
    return {"reference_latents": [random(*shape, seed=5 + number) for number, shape in enumerate(shapes)]}


def reference(*shape):
    return references(shape)


VISION = SimpleNamespace(penultimate_hidden_states=random(257, 1280, seed=4))


def takes(network, parameter):
    """Whether this host's network of that name has a parameter."""
    module, name = network.rsplit(".", 1)
    return parameter in inspect.signature(getattr(import_module(f"comfy.ldm.{module}"), name)).parameters


def every_other(block):
    return 2 * block


FAMILIES = [
    Family("Flux.1 dev", "Flux", FLUX, (16, 9, 13), (2, 2)),
    Family(
        "Flux.1 schnell", "FluxSchnell", {**FLUX, "guidance_embed": False}, (16, 9, 13), (2, 2)
    ),
    Family(
        "Flux.1 Kontext (reference latents)", "Flux", FLUX, (16, 9, 13), (2, 2),
        first=lambda length, image: length - image - 3 * 4, extras=reference(16, 6, 7),
    ),
    Family(
        "Flux.2", "Flux2",
        {**FLUX, "image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1, "vec_in_dim": None,
         "global_modulation": True, "mlp_silu_act": True, "ops_bias": False, "qkv_bias": False,
         "axes_dim": [4, 4, 4, 4], "txt_ids_dims": [3], "default_ref_method": "index", "ref_index_scale": 10.0},
        (128, 5, 7), (1, 1), extras=reference(128, 2, 3), first=lambda length, image: length - image - 6,
    ),
    Family(
        "Stable Diffusion 3", "SD3",
        dict(in_channels=16, patch_size=2, depth=2, num_blocks=6, input_size=None, adm_in_channels=8,
             context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 16, "out_features": 128}},
             qk_norm="rms"),
        (16, 9, 13), (2, 2),
    ),
    Family(
        "Stable Diffusion 3.5 medium (two attentions a block)", "SD3",
        dict(in_channels=16, patch_size=2, depth=2, num_blocks=6, input_size=None, adm_in_channels=8,
             context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 16, "out_features": 128}},
             qk_norm="rms", x_block_self_attn_layers=[0, 1, 2]),
        (16, 9, 13), (2, 2), call=lambda block: 2 * block if block < 3 else block + 3,
    ),
    Family("Chroma", "Chroma", CHROMA, (16, 9, 13), (2, 2)),
    Family(
        "Chroma Radiance", "ChromaRadiance",
        {**CHROMA, "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16,
         "nerf_hidden_size": 8, "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 2, "nerf_tile_size": 0,
         "nerf_final_head_type": "linear", "nerf_embedder_dtype": torch.float32,
         "use_x0": False, "use_sequential_txt_ids": False},
        (3, 70, 100), (16, 16),
    ),
    Family(
        "AuraFlow", "AuraFlow",
        dict(cond_seq_dim=16, dim=32, n_layers=6, n_double_layers=2, n_heads=2, global_conddim=16, max_seq=64,
             in_channels=4),
        (4, 9, 13), (2, 2),
    ),
    Family(
        "Lumina 2", "Lumina2", LUMINA, (16, 9, 13), (2, 2), call=lambda block: 4 + block,
        extras={"attention_mask": ALL_TEXT},
    ),
    Family(
        "Z-Image", "ZImage" if hasattr(comfy.supported_models, "ZImage") else "",
        {**LUMINA, "dim": 256, "n_heads": 16, "n_kv_heads": 16, "axes_dims": [4, 6, 6], "z_image_modulation": True,
         "pad_tokens_multiple": 8},
        (16, 9, 13), (2, 2),
        call=lambda block: 4 + block, first=lambda length, image: length - image - -image % 8,
    ),
    Family(
        "Z-Image in pixel space", "ZImagePixelSpace",
        {**LUMINA, "image_model": "zimage_pixel", "in_channels": 3, "patch_size": 16, "dim": 256, "n_heads": 16,
         "n_kv_heads": 16, "axes_dims": [4, 6, 6], "z_image_modulation": True, "pad_tokens_multiple": 8,
         "decoder_hidden_size": 16, "decoder_num_res_blocks": 1, "decoder_max_freqs": 2},
        (3, 70, 100), (16, 16),
        call=lambda block: 4 + block, first=lambda length, image: length - image - -image % 8,
    ),
    Family(
        "Qwen-Image", "QwenImage",
        QWEN,
        (16, 1, 9, 13), (1, 2, 2),
    ),
    Family(
        "Qwen-Image (padded prompt)", "QwenImage",
        QWEN,
        (16, 1, 9, 13), (1, 2, 2), extras={"attention_mask": PADDED_TEXT},
    ),
    Family(
        "Qwen-Image-Edit (reference latents)", "QwenImage",
        QWEN,
        (16, 1, 9, 13), (1, 2, 2), extras=reference(16, 1, 6, 7), first=lambda length, image: length - image - 3 * 4,
    ),
    Family(
        "Qwen-Image-Layered", "QwenImage" if takes("qwen_image.model.QwenImageTransformer2DModel", "use_additional_t_cond") else "",
        {**QWEN, "use_additional_t_cond": True, "default_ref_method": "negative_index"}, (16, 3, 9, 13), (1, 2, 2),
        extras=reference(16, 1, 9, 13), first=lambda length, image: length - image - 5 * 7,
    ),
    Family(
        "LongCat-Image", "LongCatImage",
        {**FLUX, "guidance_embed": False, "vec_in_dim": None, "txt_ids_dims": [1, 2]}, (16, 9, 13), (2, 2), pooled=0,
    ),
    Family(
        "HiDream-I1", "HiDream",
        dict(image_model="hidream", patch_size=2, in_channels=16, out_channels=16, num_layers=2, num_single_layers=4,
             attention_head_dim=16, num_attention_heads=2, caption_channels=[16, 16], text_emb_dim=8,
             num_routed_experts=2, num_activated_experts=1, axes_dims_rope=(4, 6, 6), max_resolution=(64, 64),
             llama_layers=[0, 1, 2, 3, 4, 5]),
        (16, 9, 13), (2, 2), first=image_first,
        extras={"conditioning_llama3": torch.randn(1, 6, 5, 16, generator=torch.Generator().manual_seed(3))},
    ),
    Family(
        "OmniGen2", "Omnigen2",
        OMNIGEN2,
        (16, 9, 13), (2, 2), call=lambda block: 4 + block, extras={"attention_mask": ALL_TEXT},
    ),
    Family(
        "OmniGen2 (reference latents)", "Omnigen2",
        OMNIGEN2,
        (16, 9, 13), (2, 2), call=lambda block: 6 + block,
        extras={**reference(16, 12, 14), "attention_mask": ALL_TEXT},
    ),
    Family(
        "Boogu", "Boogu", BOOGU, (16, 9, 13), (2, 2), call=lambda b: 4 + 2 * b if b < 2 else 6 + b,
        extras={"attention_mask": ALL_TEXT},
    ),
    Family(
        "Boogu (reference latents)", "Boogu", BOOGU, (16, 9, 13), (2, 2),
        call=lambda b: 6 + 2 * b if b < 2 else 8 + b,
        extras={**references((16, 6, 7), (16, 4, 4)), "attention_mask": ALL_TEXT},
    ),
    Family("Krea 2", "Krea2", KREA2, (16, 1, 9, 13), (1, 2, 2), text_dim=32, call=lambda b: 4 + b),
    Family(
        "Krea 2 (reference latents)", "Krea2", KREA2, (16, 1, 9, 13), (1, 2, 2), text_dim=32, call=lambda b: 4 + b,
        first=lambda length, image: length - image - 3 * 4,
        extras={**reference(16, 1, 6, 7), "reference_latents_method": "index"},
    ),
    Family("Ideogram 4", "Ideogram4", IDEOGRAM, (128, 5, 7), (1, 1)),
    Family(
        "Ideogram 4 (padded prompt)", "Ideogram4", IDEOGRAM, (128, 5, 7), (1, 1), extras={"attention_mask": PADDED_TEXT}
    ),
    Family(
        "MageFlow", "MageFlow",
        dict(image_model="mage_flow", num_layers=6, attention_head_dim=16, num_attention_heads=2,
             joint_attention_dim=16, axes_dims_rope=(4, 6, 6)),
        (128, 5, 7), (1, 1), extras=reference(128, 2, 3), first=lambda length, image: length - image - 6,
    ),
    Family(
        "JoyImage", "JoyImage",
        dict(image_model="joyimage", hidden_size=32, num_attention_heads=2, text_dim=16, num_layers=6,
             rope_dim_list=[4, 6, 6]),
        (16, 1, 9, 13), (1, 2, 2), first=image_first, extras=reference(16, 1, 6, 7),
    ),
    Family(
        "Lens", "Lens",
        dict(image_model="lens", in_channels=128, num_layers=6, attention_head_dim=16, num_attention_heads=2,
             enc_hidden_dim=16, axes_dims_rope=(4, 6, 6), selected_layer_index=(0, 1)),
        (128, 5, 7), (1, 1), first=image_first, text_dim=32, extras={"attention_mask": PADDED_TEXT},
    ),
    Family("CogVideoX", "CogVideoX_T2V", COGVIDEO, (16, 3, 9, 13), (1, 2, 2)),
    Family(
        "CogVideoX 1.5 image to video", "CogVideoX_I2V", {**COGVIDEO, "patch_size_t": 2, "in_channels": 32},
        (16, 5, 10, 14), (2, 2, 2),
    ),
    Family("PixelDiT", "PixelDiTT2I", PIXELDIT, (3, 70, 100), (16, 16)),
    Family(
        "PiD", "PiD",
        {**PIXELDIT, "image_model": "pid", "lq_hidden_dim": 16, "lq_num_res_blocks": 1},
        (3, 64, 96), (16, 16), extras={"lq_latent": random(16, 2, 3), "degrade_sigma": torch.tensor([0.5])},
    ),
    Family(
        "HiDream-O1", "HiDreamO1",
        dict(image_model="hidream_o1",
             text_config_overrides=dict(hidden_size=32, intermediate_size=32, num_hidden_layers=6,
                                        num_attention_heads=2, num_key_value_heads=1, head_dim=16, rope_dims=[4, 2, 2]),
             vision_config_overrides=dict(hidden_size=16, num_heads=2, intermediate_size=16, depth=1,
                                          num_position_embeddings=16, deepstack_visual_indexes=())),
        (3, 96, 160), (32, 32),
        extras={"text_input_ids": torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13, 151673]])},
    ),
    Family("Cosmos-Predict2", "CosmosT2IPredict2", PREDICT2, (16, 3, 10, 14), (1, 2, 2), call=every_other),
    Family("Anima", "Anima", {**PREDICT2, "image_model": "anima"}, (16, 1, 9, 13), (1, 2, 2), call=every_other),
    Family("Kandinsky 5 video", "Kandinsky5", KANDINSKY, (16, 3, 10, 14), (1, 2, 2), call=lambda b: 2 + 2 * b),
    Family(
        "Kandinsky 5 image", "Kandinsky5Image", {**KANDINSKY, "visual_embed_dim": 64}, (16, 10, 14), (2, 2),
        call=lambda b: 2 + 2 * b,
    ),
    Family(
        "HunyuanImage 2.1", "HunyuanImage21", {**HUNYUAN_VIDEO, "patch_size": [1, 1], "axes_dim": [8, 8],
                                               "in_channels": 64, "out_channels": 64, "vec_in_dim": None},
        (64, 5, 7), (1, 1), call=lambda block: 2 + block, pooled=0, first=hunyuan_first,
    ),
    Family(
        "HunyuanImage 2.1 refiner", "HunyuanImage21Refiner",
        {**HUNYUAN_VIDEO, "patch_size": [1, 1, 1], "in_channels": 128, "out_channels": 64, "vec_in_dim": None},
        (64, 1, 5, 7), (1, 1, 1), call=lambda block: 2 + block, pooled=0, first=hunyuan_first,
    ),
    Family("Wan 2.1 text to video", "WAN21_T2V", WAN, (16, 3, 9, 13), (1, 2, 2), first=image_first, call=every_other),
    Family(
        "Wan 2.1 image to video", "WAN21_I2V", {**WAN, "model_type": "i2v", "in_dim": 36}, (16, 3, 9, 13), (1, 2, 2),
        first=image_first, call=lambda block: 3 * block,
        extras={"clip_vision_output": VISION},
    ),
    Family(
        "Wan 2.1 (reference latent)", "WAN21_T2V", {**WAN, "in_dim_ref_conv": 16}, (16, 3, 10, 14), (1, 2, 2),
        first=lambda length, image: 5 * 7, call=every_other, extras=reference(16, 1, 10, 14),
    ),
    Family(
        "Wan 2.1 VACE", "WAN21_Vace", {**WAN, "model_type": "vace", "vace_layers": 2, "vace_in_dim": 96},
        (16, 3, 10, 14), (1, 2, 2), first=image_first,
        call=lambda block: 2 * (block + (block > 0) + (block > 3)),  # streams of their own follow blocks 0 and 3
    ),
    Family(
        "Wan 2.1 camera control", "WAN21_Camera", {**WAN, "model_type": "camera", "in_dim": 32}, (16, 3, 10, 14),
        (1, 2, 2), first=image_first, call=lambda block: 3 * block,
        extras={"camera_conditions": random(24, 3, 80, 112), "clip_vision_output": VISION},
    ),
    Family(
        "Wan 2.1 HuMo", "WAN21_HuMo", {**WAN, "model_type": "humo"}, (16, 3, 10, 14), (1, 2, 2), first=image_first,
        call=lambda block: 3 * block,
        extras={**reference(16, 1, 10, 14), "audio_embed": random(3, 8, 5, 1280)},
    ),
    Family(
        "Wan 2.1 SCAIL", "WAN21_SCAIL", {**WAN, "model_type": "scail", "in_dim": 20}, (16, 3, 10, 14), (1, 2, 2),
        first=lambda length, image: 5 * 7, call=lambda block: 3 * block,
        extras={**reference(16, 1, 10, 14), "pose_video_latent": random(16, 3, 6, 8)},
    ),
    Family(
        "Wan 2.1 SCAIL 2", "WAN21_SCAIL2", {**WAN, "model_type": "scail2", "in_dim": 20}, (16, 3, 10, 14), (1, 2, 2),
        first=lambda length, image: 2 * 5 * 7, call=lambda block: 3 * block,
        extras={**references((16, 1, 10, 14), (16, 1, 10, 14)), "pose_video_latent": random(16, 3, 6, 8)},
    ),
    Family(
        "Wan 2.2 S2V", "WAN22_S2V", {**WAN, "model_type": "s2v", "audio_dim": 16, "audio_inject_layers": [0, 3]},
        (16, 3, 10, 14), (1, 2, 2), first=image_first, call=every_other,
        extras={**reference(16, 1, 10, 14), "reference_motion": random(16, 19, 10, 14)},
    ),
    Family(
        "Wan 2.2 Animate", "WAN22_Animate", {**WAN, "model_type": "animate", "in_dim": 36},
        (16, 3, 10, 14), (1, 2, 2), first=image_first, call=lambda block: 3 * block, extras={
            "pose_video_latent": random(16, 2, 10, 14), "clip_vision_output": VISION
        },
    ),
    Family(
        "Wan 2.2 (5B)", "WAN22_T2V", {**WAN, "in_dim": 48, "out_dim": 48}, (48, 3, 9, 13), (1, 2, 2),
        first=image_first, call=every_other,
    ),
    Family(
        "HunyuanVideo", "HunyuanVideo", HUNYUAN_VIDEO, (16, 3, 10, 14), (1, 2, 2), call=lambda block: 2 + block,
        first=hunyuan_first,
    ),
    Family(
        "HunyuanVideo 1.5", "HunyuanVideo15", HUNYUAN_VIDEO_15, (32, 3, 10, 14), (1, 2, 2),
        call=lambda block: 2 + block, first=hunyuan_first, extras={
            "clip_vision_output": SimpleNamespace(last_hidden_state=random(9, 16)),
            "conditioning_byt5small": random(5, 1472),
        },
    ),
    Family(
        "HunyuanVideo 1.5 super-resolution", "HunyuanVideo15_SR_Distilled", {**HUNYUAN_VIDEO_15, "in_channels": 98},
        (32, 3, 10, 14), (1, 2, 2), call=lambda block: 2 + block, first=hunyuan_first,
    ),
    Family(
        "LTX-Video", "LTXV",
        dict(image_model="ltxv", in_channels=128, cross_attention_dim=48, attention_head_dim=24, num_attention_heads=2,
             caption_channels=16, num_layers=6),
        (128, 3, 5, 7), (1, 1, 1), first=image_first, call=every_other, extras={"attention_mask": ALL_TEXT},
    ),
    Family(
        "LTX-2 (video alone)", "LTXAV", LTXAV, (128, 3, 5, 7), (1, 1, 1), first=image_first, call=every_other,
        text_dim=2 * 48, extras={"attention_mask": ALL_TEXT},
    ),
    Family(
        "LTX-2 (video and sound)", "LTXAV", LTXAV, (128, 3, 5, 7), (1, 1, 1), first=image_first,
        call=lambda block: 6 * block, sound=(8, 9, 16), text_dim=2 * 48, extras={"attention_mask": ALL_TEXT},
    ),
    Family(
        "Cosmos 1", "CosmosT2V",
        {**PREDICT2, "image_model": "cosmos", "block_config": "FA-CA-MLP", "block_x_format": "THWBD",
         "affline_emb_norm": True, "extra_per_block_abs_pos_emb": True,
         "extra_per_block_abs_pos_emb_type": "learnable"},
        (16, 3, 10, 14), (1, 2, 2), first=image_first, call=every_other,
    ),
    Family(
        "Stable Cascade stage C", "Stable_Cascade_C",
        dict(c_in=16, c_out=16, c_cond=32, c_hidden=[32, 32], nhead=[2, 2], blocks=[[1, 2], [2, 1]],
             c_clip_text=16, c_clip_text_pooled=8, c_clip_img=768, c_clip_seq=2),
        (16, 9, 13), (1, 1), first=image_first,
    ),
    Family(
        "Stable Video Diffusion", "SVD_img2vid",
        dict(image_size=32, model_channels=32, in_channels=8, out_channels=4, num_res_blocks=[1, 1],
             channel_mult=[1, 2], transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1],
             transformer_depth_middle=1,
             context_dim=16, num_head_channels=16, num_heads=-1, use_spatial_transformer=True,
             use_linear_in_transformer=True, adm_in_channels=768, num_classes="sequential", use_temporal_attention=True,
             use_temporal_resblock=True, extra_ff_mix_layer=True, merge_strategy="learned_with_images",
             merge_factor=0.0, use_spatial_context=True, video_kernel_size=[3, 1, 1], legacy=False,
             disable_temporal_crossattention=False),
        (4, 10, 14), (2, 2), first=image_first, pooled=0, batch=3, chosen={("middle", 0, 0): 8}, mixes=True,
    ),
    Family(
        "PixArt", "PixArtAlpha",
        dict(image_model="pixart_alpha", input_size=16, patch_size=2, in_channels=4, hidden_size=48, depth=6,
             num_heads=2, caption_channels=16, model_max_length=TEXT),
        (4, 28, 40), (2, 2), first=image_first,
    ),
    Family(
        "Ernie-Image", "ErnieImage",
        dict(image_model="ernie", hidden_size=48, num_attention_heads=2, num_layers=6, ffn_hidden_size=48,
             in_channels=128, out_channels=128, patch_size=1, text_in_dim=16, rope_axes_dim=(8, 8, 8)),
        (128, 9, 13), (1, 1), first=image_first,
    ),
    Family(
        "HunyuanDiT", "HunyuanDiT",
        dict(image_model="hydit", input_size=(16, 16), patch_size=2, in_channels=4, hidden_size=64, depth=6,
             num_heads=2, mlp_ratio=2.0, text_states_dim=16, text_states_dim_t5=16, text_len=TEXT, text_len_t5=TEXT,
             size_cond=True, use_style_cond=True),
        (4, 10, 14), (2, 2), first=image_first,
        extras={
            "conditioning_mt5xl": torch.randn(1, TEXT, 16, generator=torch.Generator().manual_seed(3)),
            "attention_mask": ALL_TEXT, "attention_mask_mt5xl": ALL_TEXT,
        },
    ),
    Family(
        "Mochi", "GenmoMochi",
        dict(image_model="mochi_preview", depth=6, in_channels=12, hidden_size_x=48, hidden_size_y=32, num_heads=2,
             patch_size=2, qk_norm=True, t5_feat_dim=16, t5_token_length=TEXT, use_t5=True, rope_theta=10000.0,
             mlp_ratio_x=256.0, mlp_ratio_y=192.0, patch_embed_bias=True, attend_to_padding=False, learn_sigma=False),
        (12, 3, 10, 14), (1, 2, 2), first=image_first, extras={"attention_mask": ALL_TEXT},
    ),
]  # fmt: skip


_BUILT: "dict[str, comfy.model_patcher.ModelPatcher]" = {}


def available(family):
    return hasattr(comfy.supported_models, family.config)


def build(family, seed=0):
    """A ModelPatcher around a small network of the family, built once."""
    if family.name not in _BUILT:
        _BUILT[family.name] = _build(family, seed)
    return _BUILT[family.name].clone()


def _build(family, seed):
    config = getattr(comfy.supported_models, family.config)(dict(family.network))
    config.set_inference_dtype(torch.float32, None)
    config.unet_config.update(family.network)
    config.unet_config = _known(config, family.network, config.unet_config)
    torch.manual_seed(seed)
    model = config.get_model({"img_emb.proj.0.bias": None})
    randomise(model.diffusion_model, seed)
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def _known(config, network, unet_config):
    """Leave out what the networks of this host, older or newer, have no parameter for."""
    import comfy.ldm.chroma.model
    import comfy.ldm.chroma_radiance.model
    import comfy.ldm.flux.model
    import comfy.ldm.hunyuan_video.model
    import comfy.ldm.lumina.model

    parameters = {
        "flux": comfy.ldm.flux.model.FluxParams, "flux2": comfy.ldm.flux.model.FluxParams,
        "chroma": comfy.ldm.chroma.model.ChromaParams,
        "chroma_radiance": comfy.ldm.chroma_radiance.model.ChromaRadianceParams,
        "hunyuan_video": comfy.ldm.hunyuan_video.model.HunyuanVideoParams,
        "lumina2": comfy.ldm.lumina.model.NextDiT.__init__,
    }.get(network.get("image_model"))  # fmt: skip
    if parameters is None:
        return unet_config
    known = parameters.__dataclass_fields__ if is_dataclass(parameters) else inspect.signature(parameters).parameters
    return {name: value for name, value in unet_config.items() if name in {*known, "image_model", "dtype"}}


def latent_of(*streams):
    """A latent of one stream, or what the host packs several into."""
    if len(streams) == 1:
        return streams[0]
    from comfy.nested_tensor import NestedTensor

    return NestedTensor(streams)


def empty_latent(family, batch):
    streams = (family.latent, *([family.sound] if family.sound else ()))
    return latent_of(*(torch.zeros(batch, *shape) for shape in streams))


def conditioning(family, seed=0, batch=1):
    noise = torch.Generator().manual_seed(seed)
    text = torch.randn(batch, TEXT, family.text_dim, generator=noise)
    pooled = {"pooled_output": torch.randn(batch, family.pooled, generator=noise)} if family.pooled else {}
    return [[text, {**pooled, **family.extras}]]


def family_named(name):
    family = next(family for family in FAMILIES if family.name == name)
    if not available(family):
        pytest.skip(f"this host has no {name}")
    return family


def in_order(order, guide, added, model):
    return added(guide(model)) if order == "guided first" else guide(added(model))
