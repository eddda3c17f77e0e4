"""Modules that are imported when they are first used."""

import importlib.util
import sys
from types import ModuleType


def deferred(name: str) -> ModuleType:
    """A module that runs only when something of it is first asked for.

    Settings and algorithms are declared beside mathematics that needs torch, which takes seconds to
    import; a command's help must not wait for it.

    Args:
        name: Its full name; the package it is in is imported now.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
