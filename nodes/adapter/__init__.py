"""Everything that knows both ComfyUI and sag_core.

patch.py      puts guidance on a ModelPatcher and guides a step after CFG
recording.py  notes the attention that tokens receive while the host evaluates its branches
layouts/      where a model family keeps its image tokens: a line per family
branches.py   the branch that is guided: its entries, its attention map, its re-run
schema.py     fields of a node's schema that older hosts do not know
"""

from .patch import guide_model
from .schema import supported

__all__ = ["guide_model", "supported"]
