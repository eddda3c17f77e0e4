import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest

from textenv import imports
from textenv.errors import MissingExtraError
from textenv.imports import clone, deferred, how_to_install, installed, missing_extra, optional

ROOT = Path(__file__).parents[2]
CATCH_IMPORT_ERRORS = {
    "textenv/imports.py": "the helper itself",
    "textenv/loading.py": "an object that a user names",
    "policies/kernels.py": "the loops of a decoding step do without Numba",
    "policies/huggingface/loading.py": "transformers lacks what it needs to read a file",
    "agents/feedback/from_people/keys.py": "the terminal of this system has no keys one by one",
    "agents/runs/state_files.py": "a class of torchao's that a file names",
}


def test_a_missing_package_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(imports, "clone", lambda: None)
    with (
        pytest.raises(MissingExtraError) as caught,
        optional("a-b", extra="x", purpose="a plot", instead="draw one by hand"),
    ):
        import no_such_module  # noqa: F401
    assert str(caught.value) == (
        "a plot needs the a-b package (No module named 'no_such_module'): "
        'pip install "textenv[x]"; or draw one by hand'
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_what_is_installed_is_imported_and_other_errors_pass():
    with optional("json", extra="x", purpose="a plot"):
        import json
    assert json.loads("1") == 1
    with pytest.raises(ZeroDivisionError), optional("json", extra="x", purpose="a plot"):
        1 / 0  # noqa: B018


def test_a_clone_is_named_with_the_command_for_its_folder():
    assert clone() == ROOT
    assert how_to_install("demo").endswith(
        f'or in {ROOT}: pip install -c constraints.txt -e ".[demo]"'
    )
    assert str(missing_extra("p, q", extra="demo", purpose="it")).startswith(
        'it needs p, q: pip install "textenv[demo]", or in '
    )


class Distribution:
    def __init__(self, direct_url):
        self.direct_url = direct_url

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.direct_url


def test_an_installation_knows_its_clone_while_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "__file__", str(tmp_path / "site-packages/textenv/imports.py"))
    sources = tmp_path / "a clone"
    url = f'{{"dir_info": {{}}, "url": "{sources.as_uri()}"}}'
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(url))
    assert clone() is None
    sources.mkdir()
    (sources / "constraints.txt").touch()
    assert clone() == sources


@pytest.mark.parametrize("direct_url", [None, '{"url": "https://host/textenv.whl"}'])
def test_an_installation_from_an_index_has_no_clone(direct_url, tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "__file__", str(tmp_path / "site-packages/textenv/imports.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(direct_url))
    assert clone() is None
    assert how_to_install("demo") == 'pip install "textenv[demo]"'


def test_sources_that_were_only_copied_have_no_clone(tmp_path, monkeypatch):
    def distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(imports, "__file__", str(tmp_path / "x/textenv/imports.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    assert clone() is None


def test_installed_looks_without_importing():
    assert installed("this") and "this" not in sys.modules
    assert not installed("no_such_module")


def test_a_deferred_module_runs_on_first_use(tmp_path, monkeypatch):
    (tmp_path / "put_off.py").write_text("import put_off_log\nput_off_log.ran = True\nx = 3\n")
    (tmp_path / "put_off_log.py").write_text("ran = False\n")
    monkeypatch.syspath_prepend(tmp_path)
    import put_off_log

    module = deferred("put_off")
    assert not put_off_log.ran
    assert module.x == 3 and put_off_log.ran
    assert "x" in dir(module)
    module.x = 4
    assert sys.modules["put_off"].x == 4
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        deferred("no_such_module").x  # noqa: B018


def catches_import_errors(source):
    return any(
        isinstance(node, ast.ExceptHandler)
        and node.type is not None
        and {"ImportError", "ModuleNotFoundError"}
        & {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
        for node in ast.walk(ast.parse(source))
    )


def test_optional_packages_go_through_one_helper():
    found = {
        path.relative_to(ROOT).as_posix()
        for part in ("textenv", "policies", "agents")
        for path in (ROOT / part).rglob("*.py")
        if catches_import_errors(path.read_text(encoding="utf-8"))
    }
    assert found == set(CATCH_IMPORT_ERRORS)
