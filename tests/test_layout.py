"""The layout: no module imports another in a circle, and the top of `agents` stays short."""

import ast
import graphlib
import re
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXCUSE = re.compile(r"# circle: \w")  # and why, on the line of the import
MOST_ON_TOP = 10


def modules_of(package: Path) -> dict[str, Path]:
    """The file of each module of a package, by the module's full name."""
    files = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports_of(path: Path, modules: dict[str, Path]) -> set[str]:
    """Which of `modules` a file imports: at the top, in functions, and for type checkers."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    own = next(name for name, file in modules.items() if file == path)
    inside = own if path.stem == "__init__" else own.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # Ruff's TID252 keeps relative imports out; one that it was told to ignore is read too.
            origin = resolve_name("." * node.level + (node.module or ""), inside)
            # `from a import b` imports the module a.b if there is one, and a name of a otherwise.
            full = {f"{origin}.{alias.name}" for alias in node.names}
            names = {name if name in modules else origin for name in full}
        else:
            continue
        if not EXCUSE.search(lines[node.lineno - 1]):
            found |= names & modules.keys()
    return found


def circle_in(package: Path) -> list[str]:
    """Modules that import each other in a circle, the first one twice; empty if there is none."""
    modules = modules_of(package)
    graph = {name: imports_of(path, modules) for name, path in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


# Circles between packages are ruled out by tests/textenv/test_import_direction.py.
@pytest.mark.parametrize("package", ["textenv", "policies", "agents"])
def test_no_modules_import_each_other_in_a_circle(package):
    assert len(modules_of(ROOT / package)) > 20  # there is something to read
    assert not circle_in(ROOT / package), "move what both need into a module of its own"


@pytest.mark.parametrize(
    ("back", "is_circle"),
    [
        ("from toy.first import name", True),
        ("from .first import name", True),
        ("def later():\n    from . import first", True),
        ("from . import third", False),
        ("def later():\n    from toy import first", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.first", True),
        ("def later():\n    import toy.first  # circle: the two are one machine", False),
        ("def later():\n    import toy.first  # circle:", True),  # says no reason
        ("name = 'toy.first'", False),
    ],
)
def test_circles_are_found_wherever_the_import_stands(tmp_path, back, is_circle):
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text("from toy.second import name")
    (package / "second.py").write_text(back)
    circle = circle_in(package)
    assert set(circle) == ({"toy.first", "toy.second"} if is_circle else set())


def test_what_commands_are_made_of_does_not_import_them():
    modules = modules_of(ROOT / "agents")
    above = re.compile(r"agents\.(commands|jobs)\b")
    back = {
        f"{name} -> {imported}"
        for name, path in modules.items()
        if not above.match(name)
        for imported in imports_of(path, modules)
        if above.match(imported)
    }
    assert not back, "pass in what is needed, or move it below"


def test_the_top_of_agents_holds_what_defines_an_algorithm_and_nothing_else():
    on_top = sorted(path.stem for path in (ROOT / "agents").glob("*.py") if path.stem[0] != "_")
    assert {"algorithm", "learner", "losses"} <= set(on_top)
    assert (ROOT / "agents" / "returns" / "__init__.py").exists()
    assert len(on_top) <= MOST_ON_TOP, f"{on_top}: the newest belongs into one of the folders"
