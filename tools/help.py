"""Help pages: the part of each that says what a node's texts and schema say, in every language.

SAG_WRITE_TEXTS=1 writes them when tests/host/test_texts.py runs inside ComfyUI.
"""

from typing import Any, NamedTuple

MORE = "<!-- more -->\n"  # what an English page says beyond follows here
PAGES = "https://github.com/sag-founders/self-attention-guidance/blob/main/web/docs"

PICTURES = {
    "SAGSelfAttentionGuidance": "sag_demo.jpg",
    "SAGSelfAttentionGuidanceAdvanced": "sag_demo.jpg",
    "SAGPreset": "sag_demo.jpg",
    "SAGMaskPreview": "sag_demo_mask_preview.jpg",
    "SAGSweep": "sag_demo_sweep.jpg",
    "SAGCompareGrid": "sag_demo_sweep.jpg",
    "SAGDemoModel": "sag_demo.jpg",
}


class Words(NamedTuple):
    """Headings, and the words for a switch, in a language."""

    inputs: str
    outputs: str
    on: str
    off: str
    more: str


WORDS = {
    "en": Words("Inputs", "Outputs", "on", "off", ""),
    "de": Words("Eingänge", "Ausgänge", "an", "aus", "Mehr auf Englisch"),
    "es": Words("Entradas", "Salidas", "sí", "no", "Más, en inglés"),
    "fr": Words("Entrées", "Sorties", "oui", "non", "Plus, en anglais"),
    "ja": Words("入力", "出力", "オン", "オフ", "詳細（英語）"),
    "ko": Words("입력", "출력", "켜짐", "꺼짐", "자세히 (영어)"),
    "pt-BR": Words("Entradas", "Saídas", "sim", "não", "Mais, em inglês"),
    "ru": Words("Входы", "Выходы", "вкл.", "выкл.", "Подробнее, по-английски"),
    "zh": Words("输入", "输出", "开", "关", "更多内容（英文）"),
    "zh-TW": Words("輸入", "輸出", "開", "關", "更多內容（英文）"),
}


def page(node: str, schema: Any, texts: "dict[str, Any]", language: str) -> str:
    """A node's help page as far as its schema and its texts give it, as Markdown.

    Args:
        node: its id.
        schema: as `define_schema` returns it.
        texts: what `locales/<language>/nodeDefs.json` says of the node.
        language: a key of WORDS.
    """
    words = WORDS[language]
    parts = [
        f"# {texts['display_name']}",
        f"![{texts['display_name']}]({PICTURES[node]})",
        texts["description"],
        f"## {words.inputs}",
        "\n".join(_input(field, texts["inputs"][field.id], words) for field in schema.inputs),
        f"## {words.outputs}",
        "\n".join(
            f"- {_named(output.display_name, texts['outputs'][str(number)]['name'])}: "
            f"{texts['outputs'][str(number)]['tooltip']}"
            for number, output in enumerate(schema.outputs)
        ),
    ]
    if words.more:
        parts.append(f"[{words.more}]({PAGES}/{node}.md)")
    return "\n\n".join(parts) + "\n"


def _input(field: Any, texts: "dict[str, str]", words: Words) -> str:
    """An input's line: its name, what it starts with and may be, and what it does."""
    default = getattr(field, "default", None)
    if isinstance(default, bool):
        default = words.on if default else words.off
    facts = [] if default in (None, "") else ["; ".join(str(default).splitlines())]
    if getattr(field, "options", None):
        facts = [", ".join(f"`{option}`" for option in field.options)]
    if getattr(field, "min", None) is not None:
        facts.append(f"{field.min:g} … {field.max:g}")
    what = f" ({'; '.join(facts)})" if facts else ""
    return f"- {_named(field.id, texts['name'])}{what}: {texts['tooltip']}"


def _named(name: str, translated: str) -> str:
    return f"**`{name}`**" if name == translated else f"**`{name}`** {translated}"
