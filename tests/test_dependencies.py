"""Every package that the sources import is declared, with a version that it is tested with."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN = {"textenv", "policies", "agents"}
NAMED_OTHERWISE = {"mlflow": ["mlflow-skinny"], "gem": ["gem-llm"]}
"""Packages of modules that need not be installed for this test."""
NOT_PINNED = {
    "datasets": "of the benchmarks' peers, whose versions a benchmark prints",
}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared():
    """The packages that textenv or one of its extras asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {normal(re.match(r"[\w.-]+", line).group()) for lines in lists for line in lines}
    return names - {"textenv"}


def imported():
    """Top-level modules that the three packages import, at the top or anywhere within."""
    found = set()
    for path in (path for part in OWN for path in (ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    return found - OWN - sys.stdlib_module_names


def test_what_is_imported_is_declared():
    providers = {**packages_distributions(), **NAMED_OTHERWISE}
    assert {"torch", "llvmlite", "numpy"} <= imported()
    missing = {
        module
        for module in imported()
        if not declared() & set(map(normal, providers.get(module, [module])))
    }
    assert not missing


def test_what_is_declared_has_a_tested_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line.split("==")[0]) for line in lines if not line.startswith("#")}
    assert declared() - set(NOT_PINNED) <= pinned
