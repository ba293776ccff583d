"""Where we are in the prompt that the server runs; nowhere, if no server runs us."""

import sys
from typing import Any, NamedTuple, Optional

try:
    from comfy_execution.utils import get_executing_context
except ImportError:  # a host that tells this otherwise: then we are nowhere, and guidance is as ever
    get_executing_context = None

Prompt = dict[str, dict[str, Any]]  # nodes by id, each with class_type and inputs; an input from a node is [id, output]


class Place(NamedTuple):
    prompt_id: str
    prompt: Prompt
    node: str  # that is being executed


def server() -> Optional[Any]:
    """The host's PromptServer, if there is one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def here() -> Optional[Place]:
    """The node that is being executed, in its prompt."""
    context = get_executing_context() if get_executing_context else None
    look = getattr(getattr(server(), "prompt_queue", None), "get_current_queue_volatile", None)
    if context is None or look is None:
        return None
    running, _ = look()  # (number, prompt's id, prompt, ...) each
    return next((Place(item[1], item[2], context.node_id) for item in running if item[1] == context.prompt_id), None)


def is_connected(place: Place, output: int) -> bool:
    """Whether another node takes an output of this one. True for a node that the prompt does not list: who knows."""
    link = [place.node, output]
    return place.node not in place.prompt or any(link in node["inputs"].values() for node in place.prompt.values())


def upstream(prompt: Prompt, node: str) -> Prompt:
    """A node, and all that it is made of: what decides over its result."""
    found, waiting = {}, [node]
    while waiting:
        name = waiting.pop()
        if name in prompt and name not in found:
            inputs = prompt[name]["inputs"]
            found[name] = {"class_type": prompt[name]["class_type"], "inputs": inputs}
            waiting += [value[0] for value in inputs.values() if isinstance(value, list) and len(value) == 2]
    return found
