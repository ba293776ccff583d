"""Square pictures that show in the window's list of templates what each workflow shows."""

import io
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SIDE = 512
CELL = SIDE // 2
TITLE = 34
INK, PAPER, BOX, OURS, LINK = "#1c1c1c", "#ffffff", "#e4e4e4", "#ffd28a", "#8a8a8a"


def opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file)).convert("RGB")


def of_picture(picture: Image.Image, title: str) -> Image.Image:
    """One picture under a title."""
    page, draw = _page(title)
    picture = _fitted(picture, SIDE, SIDE - TITLE)
    page.paste(picture, ((SIDE - picture.width) // 2, TITLE + (SIDE - TITLE - picture.height) // 2))
    return page


def of_four(pictures: "dict[str, Image.Image]") -> Image.Image:
    """Four pictures, each with its name in its corner."""
    page = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(page)
    for place, (name, picture) in enumerate(pictures.items()):
        left, top = place % 2 * CELL, place // 2 * CELL
        page.paste(_fitted(picture, CELL - 2, CELL - 2), (left, top))
        width = draw.textlength(name, _font(18))
        draw.rectangle((left, top, left + width + 12, top + 26), PAPER)
        draw.text((left + 6, top + 13), name, INK, _font(18), anchor="lm")
    return page


def of_graph(workflow: "dict[str, Any]", title: str, remark: str) -> Image.Image:
    """The nodes of a workflow as named boxes where the window shows them, for what cannot be drawn without a model."""
    page, draw = _page(title)
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] != "MarkdownNote"}
    # Columns and rows of equal size keep the names readable.
    columns = sorted({node["pos"][0] for node in nodes.values()})
    rows = sorted({node["pos"][1] for node in nodes.values()})
    width, height = SIDE / len(columns), (SIDE - 2 * TITLE) / len(rows)
    middles = {
        number: ((columns.index(node["pos"][0]) + 0.5) * width, TITLE + (rows.index(node["pos"][1]) + 0.5) * height)
        for number, node in nodes.items()
    }
    for _, source, _, target, *_ in workflow["links"]:
        draw.line((*middles[source], *middles[target]), LINK, 2)
    for number, node in nodes.items():
        x, y = middles[number]
        box = (x - width / 2 + 5, y - min(height, 84) / 2 + 4, x + width / 2 - 5, y + min(height, 84) / 2 - 4)
        draw.rounded_rectangle(box, 6, OURS if node["type"].startswith("SAG") else BOX, LINK)
        name = node.get("title", NAMES.get(node["type"], node["type"]))
        draw.multiline_text((x, y), _broken(draw, name, width - 14), INK, _font(12), anchor="mm", align="center")
    draw.text((SIDE / 2, SIDE - TITLE / 2), remark, INK, _font(15), anchor="mm")
    return page


# What the window calls nodes of these types, where that is not the type.
NAMES = {
    "CheckpointLoaderSimple": "Load Checkpoint",
    "CLIPLoader": "Load CLIP",
    "CLIPTextEncode": "CLIP Text Encode",
    "ConditioningZeroOut": "Conditioning Zero Out",
    "EmptyHunyuanLatentVideo": "Empty Latent Video",
    "EmptyLatentImage": "Empty Latent Image",
    "EmptySD3LatentImage": "Empty Latent Image",
    "FluxGuidance": "Flux Guidance",
    "ModelSamplingSD3": "Model Sampling SD3",
    "SAGSelfAttentionGuidance": "Self-Attention Guidance",
    "SaveAnimatedWEBP": "Save Animated WEBP",
    "SaveImage": "Save Image",
    "UNETLoader": "Load Diffusion Model",
    "VAEDecode": "VAE Decode",
    "VAELoader": "Load VAE",
}


def _page(title: str) -> "tuple[Image.Image, ImageDraw.ImageDraw]":
    page = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((SIDE / 2, TITLE / 2), title, INK, _font(20), anchor="mm")
    return page, draw


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    factor = min(width / picture.width, height / picture.height)
    small = picture.width <= 64  # a picture of few pixels shows them as squares
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _broken(draw: ImageDraw.ImageDraw, text: str, width: float) -> str:
    lines = [""]
    for word in text.replace("Self-Attention", "Self- Attention").split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, _font(12)) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _font(size: int) -> ImageFont.ImageFont:
    """Pillow's own font, so that a picture looks alike everywhere."""
    return ImageFont.load_default(size)
