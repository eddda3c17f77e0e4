"""Modules that are imported when they are first used, and packages that are optional."""

import importlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from textenv.errors import MissingExtraError


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


@contextmanager
def optional(package: str, *, extra: str, purpose: str, instead: str = "") -> Iterator[None]:
    """Imports of an optional package, or an error that says how to install it.

        with optional("httpx", extra="remote", purpose="a reward from a server"):
            import httpx

    The imports inside stay ordinary ones, which type checkers understand.

    Args:
        package: Its name as pip knows it.
        extra: Which extra of textenv installs it; several are separated by commas.
        purpose: What needs the package, in the singular: "a reward from a server".
        instead: What to do without the package: "give one of your own".

    Raises:
        MissingExtraError: The import failed.
    """
    try:
        yield
    except ImportError as error:
        wanted = f"the {package} package ({error})"
        raise missing_extra(wanted, extra=extra, purpose=purpose, instead=instead) from error


def installed(module: str) -> bool:
    """Whether a top-level module can be found; it is not imported."""
    return importlib.util.find_spec(module) is not None


def missing_extra(wanted: str, *, extra: str, purpose: str, instead: str = "") -> MissingExtraError:
    """The error that says what is missing, and how to install it.

    Args:
        wanted: The package or packages.
        extra: See `optional`, as for the rest.
        purpose: What needs them.
        instead: What to do without them.
    """
    otherwise = f"; or {instead}" if instead else ""
    return MissingExtraError(f"{purpose} needs {wanted}: {how_to_install(extra)}{otherwise}")


def how_to_install(extra: str) -> str:
    """The command that adds an extra to this installation of textenv.

    pip finds the extras of an installed textenv without asking an index, so its name will do
    wherever it was installed from. A clone has the versions that textenv is tested with.
    """
    by_name = f'pip install "textenv[{extra}]"'
    folder = clone()
    if folder is None:
        return by_name
    return f'{by_name}, or in {folder}: pip install -c constraints.txt -e ".[{extra}]"'


def clone() -> Path | None:
    """The folder with the sources that textenv runs from or was installed from, if it is there."""
    folder = Path(__file__).parents[1]
    if not (folder / "constraints.txt").exists():
        import importlib.metadata as metadata  # seldom needed, and slow

        try:
            origin = metadata.distribution("textenv").read_text("direct_url.json")
        except metadata.PackageNotFoundError:
            return None
        url = urlsplit(json.loads(origin or "{}").get("url", ""))
        if url.scheme != "file":
            return None
        folder = Path(unquote(url.path))
    return folder if (folder / "constraints.txt").exists() else None
