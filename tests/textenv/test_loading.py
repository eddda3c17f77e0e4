"""`load_object`: what it finds, and what it says when it finds nothing."""

import collections
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from textenv.errors import ObjectNotFoundError, TextEnvError
from textenv.loading import load_object


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return path


def test_an_object_of_a_module():
    assert load_object("collections:OrderedDict") is collections.OrderedDict
    assert load_object("os.path:join")("a", "b") in ("a/b", "a\\b")


def test_an_object_of_a_file_is_loaded_once(tmp_path):
    file = write(tmp_path / "my.odd-name.py", "box = []\n")
    first = load_object(f"{file}:box")
    first.append(1)
    assert load_object(f"{file}:box") is first


def test_the_same_file_by_another_path_is_the_same_module(tmp_path, monkeypatch):
    write(tmp_path / "rewards.py", "box = []\n")
    monkeypatch.chdir(tmp_path)
    assert load_object("rewards.py:box") is load_object(f"{tmp_path}/sub/../rewards.py:box")


def test_files_of_equal_names_do_not_meet(tmp_path):
    one = write(tmp_path / "a" / "r.py", "x = 1\n")
    two = write(tmp_path / "b" / "r.py", "x = 2\n")
    assert (load_object(f"{one}:x"), load_object(f"{two}:x")) == (1, 2)


def test_a_file_does_not_shadow_a_module(tmp_path):
    file = write(tmp_path / "json.py", "x = 1\n")
    load_object(f"{file}:x")
    assert load_object("json:loads")("2") == 2


@pytest.mark.parametrize("name", ["plain.py", "with.dots and spaces.py"])
def test_what_a_file_defines_can_be_pickled(tmp_path, name):
    file = write(
        tmp_path / name,
        """
        from dataclasses import dataclass

        @dataclass
        class Judge:
            bias: "float"

        def score(episodes):
            return [0.0]

        judge = Judge(2.0)
        """,
    )
    score, judge = load_object(f"{file}:score"), load_object(f"{file}:judge")
    assert pickle.loads(pickle.dumps(score)) is score
    assert pickle.loads(pickle.dumps(judge)) == judge


@pytest.mark.parametrize("spec", ["", "math", "math:", ":sqrt", "a plain sentence"])
def test_a_string_of_another_form(spec):
    with pytest.raises(ObjectNotFoundError, match=r"package\.module:name"):
        load_object(spec)


@pytest.mark.parametrize("spec", ["two words:x", ".relative:x", "a..b:x", "dir/file:x"])
def test_a_location_that_no_module_can_have(spec):
    with pytest.raises(ObjectNotFoundError, match="not the name of a module"):
        load_object(spec)


def test_no_such_module_names_the_part_that_is_missing():
    with pytest.raises(ObjectNotFoundError, match="no module 'no_such_package'"):
        load_object("no_such_package.sub:x")
    with pytest.raises(ObjectNotFoundError, match=r"no module 'os\.no_such_part'"):
        load_object("os.no_such_part:x")


def test_no_such_name_suggests_close_ones():
    with pytest.raises(ObjectNotFoundError, match="math has no 'sqr'; did you mean sqrt"):
        load_object("math:sqr")
    with pytest.raises(ObjectNotFoundError, match=r"math has no 'zzzzz'$"):
        load_object("math:zzzzz")


def test_no_such_file(tmp_path):
    with pytest.raises(ObjectNotFoundError, match=r"no file .*absent\.py"):
        load_object(f"{tmp_path}/absent.py:x")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ObjectNotFoundError, match=r"no file .*folder\.py"):
        load_object(f"{tmp_path}/folder.py:x")


def test_what_a_file_raises_on_import_is_the_cause_and_it_can_be_tried_again(tmp_path):
    file = write(tmp_path / "broken.py", "raise RuntimeError('not today')\n")
    with pytest.raises(
        ObjectNotFoundError, match=r"broken\.py raised RuntimeError: not today"
    ) as e:
        load_object(f"{file}:x")
    assert isinstance(e.value.__cause__, RuntimeError)
    # Of another size, so that Python does not take the cached bytecode for its own.
    write(file, "x = 'mended, and longer than before'\n")
    assert load_object(f"{file}:x").startswith("mended")


def test_a_syntax_error_is_the_cause(tmp_path):
    file = write(tmp_path / "wrong.py", "def f(:\n")
    with pytest.raises(ObjectNotFoundError) as e:
        load_object(f"{file}:f")
    assert isinstance(e.value.__cause__, SyntaxError)


def test_a_module_that_imports_something_missing_is_not_itself_missing(tmp_path, monkeypatch):
    write(tmp_path / "importer_of_nothing.py", "import no_such_module_at_all\n")
    write(tmp_path / "raiser.py", "1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ObjectNotFoundError, match="importing importer_of_nothing raised") as e:
        load_object("importer_of_nothing:x")
    assert isinstance(e.value.__cause__, ModuleNotFoundError)
    with pytest.raises(ObjectNotFoundError, match="importing raiser raised ZeroDivisionError"):
        load_object("raiser:x")


def test_the_error_is_also_an_import_error():
    assert issubclass(ObjectNotFoundError, ImportError) and issubclass(
        ObjectNotFoundError, TextEnvError
    )


def test_the_module_name_is_the_same_in_another_process(tmp_path):
    file = write(tmp_path / "r.py", "def f(): ...\n")
    code = (
        "from textenv.loading import load_object\n"
        f"print(load_object({str(file) + ':f'!r}).__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == load_object(f"{file}:f").__module__
