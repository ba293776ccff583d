"""The contract of the adapter, inside the real ComfyUI."""

from contract import *  # noqa: F403
