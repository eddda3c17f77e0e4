"""Modules of anyone's checkout, without the engines around them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from textenv.errors import MissingFileError, UnmetNeedError


def module_of_checkout(folder: str | Path, name: str, without: Sequence[str] = ()) -> ModuleType:
    """One module of a checkout or an unpacked wheel, such as `openrlhf.models.loss`.

    The packages around it are not imported as a whole, so that their engines (vLLM, DeepSpeed, Ray)
    need not be installed. What the module itself imports has to be.

    Args:
        folder: Where the top package lies.
        name: The module's full name.
        without: Packages that it imports and that its losses do not use, such as `deepspeed`: empty
            modules stand in for those that are not installed.

    Returns:
        The module. Those of another checkout that were asked for before stay what they are.

    Raises:
        MissingFileError: There is no such module in the folder.
        UnmetNeedError: The package itself has been imported, from elsewhere.
    """
    _forget_another(name.partition(".")[0], folder)
    standing_in = [p for p in without if importlib.util.find_spec(p) is None]
    for package in standing_in:
        sys.modules[package] = ModuleType(package)
    above = name.split(".")[:-1]
    for depth in range(1, len(above) + 1):
        package = ".".join(above[:depth])
        path = Path(folder, *above[:depth])
        if not path.is_dir():
            raise MissingFileError(f"there is no folder {path}: `folder` is what holds {above[0]}/")
        if package not in sys.modules:
            module = ModuleType(package)
            module.__path__ = [str(path)]
            sys.modules[package] = module
    try:
        return importlib.import_module(name)
    finally:  # others ask whether such a package is there
        for package in standing_in:
            sys.modules.pop(package, None)


def _forget_another(package: str, folder: str | Path) -> None:
    """Let go of another checkout's modules, which Python would give out again for these."""
    known = sys.modules.get(package)
    here = Path(folder, package).resolve()
    places = [*getattr(known, "__path__", [])]
    if known is None or here in (Path(path).resolve() for path in places):
        return
    if known.__spec__ is not None:  # not made here
        raise UnmetNeedError(
            f"{package} has been imported from {', '.join(places) or known}: ask for the module in "
            f"{folder} in a process that does not import it"
        )
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        del sys.modules[name]
