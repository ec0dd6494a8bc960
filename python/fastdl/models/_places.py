"""Networks of recipes, by the place where a recipe defines them: what a file can say of a function."""

import importlib
import sys

from ..module import Module

_RECIPES = f"{__package__.rpartition('.')[0]}.recipes."


def place_of(network):
    """Where a recipe defines this network, as a file can say it; None for other functions."""
    module, name = getattr(network, "__module__", None) or "", getattr(network, "__qualname__", "")
    known = module.startswith(_RECIPES) and getattr(sys.modules.get(module), name, None) is network
    return f"{module}.{name}" if known else None


def network_at(place):
    """The network of a recipe that a file names. Nothing but a recipe's network is ever called for a file."""
    module, _, name = str(place).rpartition(".")
    if not module.startswith(_RECIPES) or not module.removeprefix(_RECIPES).isidentifier():
        raise ValueError(f"function: expected a network of a recipe; got {place!r}")
    try:
        network = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ValueError(f"function: expected a network of a recipe; got {place!r}, which is not there") from None
    if not (name.endswith("network") or (isinstance(network, type) and issubclass(network, Module))):
        raise ValueError(f"function: expected a network of a recipe; got {place!r}")
    return network
