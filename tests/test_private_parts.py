"""What textenv uses of other packages beyond their public names is listed, and is still there.

The list is `private_parts.py`. Its uses are found in the source itself: imports, attributes of
another object, and attributes of `self` that no file of ours defines. A private attribute of
another package which has the name of one of ours is found only where it is listed.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest
from private_parts import PARTS, PUBLIC, Part, there

ROOT = Path(__file__).parents[1]
OWN = ("textenv", "policies", "agents")
FILES = [path for package in OWN for path in (ROOT / package).rglob("*.py")]
NAMED_TUPLES = {"_asdict", "_replace", "_fields", "_make"}


def is_private(name):
    return name.startswith("_") and name.strip("_") != "" and not name.endswith("__")


def defined_in(tree):
    """Private names that a file gives to what is its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("self", "cls")
        ):
            yield node.attr


def private_imports(tree):
    """The paths that a file imports from private modules of other packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            paths = [(node.module, f"{node.module}.{alias.name}") for alias in node.names]
        else:
            continue
        for module, path in paths:
            top = path.split(".")[0]
            inside = top in PUBLIC and module not in PUBLIC[top]
            private = inside or any(map(is_private, path.split(".")))
            if private and top not in OWN:
                yield path


def private_attributes(tree):
    """Private attributes that a file uses, and whether they are those of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            yield node.attr, own
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "setattr", "hasattr", "delattr")
            and isinstance(node.args[1], ast.Constant)
            and is_private(str(node.args[1].value))
        ):
            yield node.args[1].value, False


def overridden(tree):
    """Methods of a file's classes that are listed as another package's."""
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def find_uses(sources, parts):
    """Private parts by path, or by name where only that can be read, with the files that use them.

    Args:
        sources: Python source by the name of its file.
        parts: Those that are listed.
    """
    trees = {file: ast.parse(source) for file, source in sources.items()}
    ours = {name for tree in trees.values() for name in defined_in(tree)}
    by_name = {part.name: part.path for part in parts}
    uses = defaultdict(set)
    for file, tree in trees.items():
        for path in private_imports(tree):
            uses[path].add(file)
        for name, own in private_attributes(tree):
            if name not in ours | NAMED_TUPLES or (name in by_name and not own):
                uses[by_name.get(name, name)].add(file)
        for name in overridden(tree) & {p.name for p in parts if "overridden" in p.why}:
            uses[by_name[name]].add(file)
    return dict(uses)


USES = find_uses(
    {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}, PARTS
)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.path)
def test_the_part_is_where_it_was(part):
    pytest.importorskip(part.path.split(".")[0])
    files = ", ".join(sorted(USES[part.path]))
    assert there(part), f"{part.path} is gone; {files}: {part.why}"


def test_every_private_part_in_use_is_listed_and_nothing_else():
    listed = {part.path for part in PARTS}
    unlisted = {path: sorted(files) for path, files in USES.items() if path not in listed}
    assert not unlisted, f"list in tests/private_parts.py, or do without: {unlisted}"
    assert listed == set(USES), f"take off the list, nobody uses: {listed - set(USES)}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from torch._inductor import config", "torch._inductor.config"),
        ("import torch._dynamo", "torch._dynamo"),
        ("from torch import _C", "torch._C"),
        ("from numba.core.types import Array", "numba.core.types.Array"),
        ("x = weight._base", "_base"),
        ("def f(self):\n    return self._modules", "_modules"),
        ("torch.ops.aten._softmax(x)", "_softmax"),
        ("getattr(model, '_tied', None)", "_tied"),
        ("layer._hook = 3", "_hook"),
        ("a._version", "torch.Tensor._version"),
    ],
)
def test_a_use_is_found(source, found):
    parts = [Part("torch.Tensor._version", "")]
    ours = "class A:\n    def __init__(self):\n        self._version = 0\n"
    assert find_uses({"ours.py": ours, "new.py": source}, parts) == {found: {"new.py"}}


def test_what_is_ours_or_public_is_no_use():
    source = """
from __future__ import annotations
import numba
from numba.extending import intrinsic
from policies._inner import _x
class A:
    _count: int = 0
    def __init__(self):
        self._made = self._count
    def _helper(self):
        return self._made + self.__dict__["a"] + interval._asdict()["b"]
for _, x in a._helper():
    pass
"""
    assert find_uses({"a.py": source}, [Part("torch.Tensor._made", "")]) == {}


def test_a_part_that_moved_is_noticed():
    assert not there(Part("torch.ops.mkldnn._no_such_operator", ""))
    assert not there(Part("torch.no_such_module._x", ""))
    assert not there(Part("torch.nn.Module._no_such", "", lambda: object()))
