"""Everything that knows both ComfyUI and sag_core.

patch.py      puts guidance on a ModelPatcher and guides a step after CFG
steps.py      the state of guidance: a run, and one evaluation of the guider in it
recording.py  notes the attention that tokens receive while the host evaluates its branches
layouts/      where a model family keeps its image tokens: a line per family
blocks.py     reads which attention blocks a user wants
timing.py     when a node guides: its window, its curve, every k-th step
branches.py   the branch that is guided: its entries, its attention map, its re-run
region.py     the MASK a user draws, as weights on the latent
demo.py       the demo model as the host's own objects
schema.py     fields of a node's schema that older hosts do not know
"""

from .blocks import AUTO
from .patch import guide_model
from .schema import supported

__all__ = ["AUTO", "guide_model", "supported"]
