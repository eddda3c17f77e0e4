"""What textenv uses of other packages beyond their public names is listed, and is still there.

The list is `private_parts.py`. Its uses are found in the source itself: imports, attributes of
another object, and attributes of `self` that no file of ours defines. A private attribute of
another package which has the name of one of ours is found only where it is listed.
"""

import ast
from collections import Counter, defaultdict
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


def methods_in(tree):
    """Names of all functions of a file, those of its classes included."""
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def by_last_name(parts):
    """The parts that are found by their last name alone: attributes, and methods overridden."""
    named = [part for part in parts if is_private(part.name) or part.overridden]
    twice = [name for name, count in Counter(p.name for p in named).items() if count > 1]
    assert not twice, f"two parts are called {twice}: a use of one counts for the other"
    return {part.name: part for part in named}


def find_uses(sources, parts):
    """Private parts by path, or by name where only that can be read, with the files that use them.

    Args:
        sources: Python source by the name of its file.
        parts: Those that are listed.
    """
    trees = {file: ast.parse(source) for file, source in sources.items()}
    ours = {name for tree in trees.values() for name in defined_in(tree)}
    by_name = by_last_name(parts)
    overridden = {name for name, part in by_name.items() if part.overridden}
    uses = defaultdict(set)
    for file, tree in trees.items():
        for path in private_imports(tree):
            uses[path].add(file)
        for name, own in private_attributes(tree):
            if name not in ours | NAMED_TUPLES or (name in by_name and not own):
                uses[by_name[name].path if name in by_name else name].add(file)
        for name in methods_in(tree) & overridden:
            uses[by_name[name].path].add(file)
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


def test_a_method_in_place_of_anothers_is_a_use():
    source = "class A(B):\n    def _act(self):\n        pass\n"
    plain, own = Part("p.B._act", "is overridden"), Part("p.B._act", "", overridden=True)
    assert find_uses({"a.py": source}, [plain]) == {}
    assert find_uses({"a.py": source}, [own]) == {"p.B._act": {"a.py"}}


def test_two_parts_of_one_name_are_told():
    with pytest.raises(AssertionError, match=r"two parts are called \['_act'\]"):
        find_uses({}, [Part("p.A._act", ""), Part("p.B._act", "")])
    assert find_uses({}, [Part("p._a.Array", ""), Part("p._b.Array", "")]) == {}  # by their paths


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
