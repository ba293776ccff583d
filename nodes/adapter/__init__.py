"""What knows both ComfyUI and sag_core, and beside it the few things that know ComfyUI alone.

Guidance, in the order in which a run meets it:

patch.py       puts guidance on a ModelPatcher and guides a step after CFG
blocks.py      reads which attention blocks a user wants
timing.py      when a node guides: its window, its curve, every k-th step
recording.py   notes predictions and received attention while the host evaluates its branches
layouts/       where a model family keeps its image tokens: a line per family
evaluation.py  the state of guidance: a run, the guider's evaluations in it, and what was seen in them
branches.py    the branch that is guided: its entries, its attention map, its re-run
windows.py     one map of several context windows
streams.py     latents that pack a video and its sound: the first is guided
region.py      the MASK a user draws, as weights on the latent
watching.py    what a guided step was, for whoever looks on
trace.py       who keeps what guidance did, for a preview
status.py      who says on the node how guidance went
steps.py       which step of the sampler an evaluation belongs to

Beside it:

prompt.py      where we are in the prompt that the server runs
demo.py        the demo model as the host's own objects
folder.py      what there is to say about the folder that the pack lies in
schema.py      fields of a node's schema that older hosts do not know
"""

from .blocks import read_names
from .folder import warn_of_folder
from .patch import guide_model
from .schema import supported
from .status import told_on
from .trace import Trace, is_wanted, recorded_in
from .watching import GuidedStep, Watch

__all__ = [
    "GuidedStep",
    "Trace",
    "Watch",
    "guide_model",
    "is_wanted",
    "read_names",
    "recorded_in",
    "supported",
    "told_on",
    "warn_of_folder",
]
