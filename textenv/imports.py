"""Modules that are imported when they are first used."""

import importlib
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """Stands for a module until something of it is asked for, and passes everything on to it.

    It is not put into `sys.modules`, as `importlib.util.LazyLoader` does: whatever looks through
    that, as torch does while it is imported, would load the module at a bad moment.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(importlib.import_module(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(importlib.import_module(self.__name__), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self.__name__))


def deferred(name: str) -> ModuleType:
    """A module that is imported only when something of it is first asked for.

    Settings and algorithms are declared beside mathematics that needs torch, which takes seconds to
    import; a command's help must not wait for it.

    Args:
        name: Its full name.
    """
    return _Deferred(name)
