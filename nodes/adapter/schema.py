"""Fields of a node's schema that older hosts do not know."""

import inspect
from typing import Any, Callable


def supported(factory: Callable, **fields: Any) -> dict[str, Any]:
    """Those of `fields` that this host's `factory` accepts; the others only add comfort and are left out."""
    parameters = inspect.signature(factory).parameters
    return {name: value for name, value in fields.items() if name in parameters}
