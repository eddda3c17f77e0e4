"""The pages: those of the environments are generated, and what all of them name exists."""

import ast
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import gymnasium as gym
import pytest

from agents import Algorithm, Collector, Learner, Trainer
from agents.algorithms.names import ALGORITHMS
from agents.commands import COMMANDS
from agents.commands.options import Common, groups_of, options_of
from policies import Policy
from textenv import TextVectorEnv

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("textenv", "policies", "agents")


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location(
        "make_environments", DOCS / "make_environments.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(generator):
    pages = generator.pages()
    assert len(pages) == sum(name.startswith("textenv/") for name in gym.registry) > 0
    assert set(pages) == set((DOCS / "environments").glob("*.md"))
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/make_environments.py"


def test_the_page_has_the_sections_of_gymnasium():
    page = (DOCS / "environments" / "generate.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", page, flags=re.M) == [
        "Description",
        "Action space",
        "Observation space",
        "Rewards",
        "Starting state",
        "Episode end",
        "Info",
        "Arguments",
        "Errors",
        "Version history",
    ]
    assert "| Action space | `Discrete(257)` |" in page  # 256 bytes and the stop token
    assert "| Observation space | `Box(0, 257, (68,), int64)` |" in page  # "the " and 64
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .+ \|$", page, flags=re.M)
    assert [name for name, _ in rows] == list(inspect.signature(TextVectorEnv).parameters)
    assert dict(rows)["prompts"] == "`None`" and dict(rows)["max_new_tokens"] == "`64`"


def test_an_argument_without_a_description_is_noticed(generator):
    class Undescribed:
        """Something.

        Args:
            one: The first,
                in two lines.
        """

        def __init__(self, one, two=2):
            pass

    arguments = generator.read(Undescribed)[2]["Args"]
    assert arguments == {"one": "The first, in two lines."}
    with pytest.raises(KeyError, match="two"):
        generator.table(Undescribed, arguments)


# ---------------------------------------------------------------- names and files in the pages


def names_in(path):
    """Functions, classes and constants of a Python file, and members of its classes as `A.b`."""
    found = set()

    def stored(node, sort):
        return [n for n in ast.walk(node) if isinstance(n, sort) and isinstance(n.ctx, ast.Store)]

    def visit(body, owner):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(owner + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{owner}{node.name}.")
            elif isinstance(node, ast.FunctionDef) and owner:
                found.update(owner + name.attr for name in stored(node, ast.Attribute))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                found.update(owner + name.id for name in stored(node, ast.Name))

    visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def cells_of(page, header):
    """The rows of all tables of a page that have this header, as lists of cells."""
    rows, inside = [], False
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells == header:
            inside = True
        elif inside and set(line) - set("|-"):
            assert len(cells) == len(header), line
            rows.append(cells)
    return rows


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), ROOT / "README.md"], ids=lambda p: p.stem)
def test_no_table_is_left_to_be_filled(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.fullmatch(r"[A-Z][A-Z0-9_]{4,}", line.strip())] == []


def test_every_file_and_name_of_where_to_change_exists():
    rows = cells_of("where_to_change.md", ["to change", "open", "look for"])
    assert len(rows) >= 25
    for what, files, names in rows:
        paths = [ROOT / name for name in quoted(files)]
        assert paths, f"{what}: no file"
        assert [path for path in paths if not path.is_file()] == [], what
        known = set().union(*(names_in(p) for p in paths if p.suffix in (".py", ".pyi")))
        assert set(quoted(names)) <= known, what


def test_all_items_of_the_articles_have_a_file_or_a_reason():
    rows = cells_of("articles.md", ["#", "what the articles say", "where it is", "remarks"])
    assert [row[0] for row in rows] == [str(number) for number in range(1, 91)]
    for number, said, where, remarks in rows:
        files = quoted(where)
        assert said and (files or remarks.startswith("Left out: ")), number
        assert [name for name in files if not (ROOT / name).is_file()] == [], number


def test_names_are_found_where_they_are_defined(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(
        "TOP, OTHER = 1, 2\n"
        "class A:\n"
        "    field: int = 0\n"
        "    def __init__(self):\n"
        "        self.set = local = 1\n"
        "    def method(self):\n"
        "        hidden = TOP\n"
        "def function():\n"
        "    def inner(): ...\n"
    )
    assert names_in(path) == {
        *("TOP", "OTHER", "function", "A"),
        *("A.field", "A.__init__", "A.set", "A.method"),
    }


def test_the_words_stand_in_the_code():
    known = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            known |= names_in(path)
    rows = cells_of("concepts.md", ["word", "meaning", "in the code"])
    words = [row[0] for row in rows]
    assert len(words) == len(set(words)) > 30
    for word, _, names in rows:
        assert quoted(names), word
        assert set(quoted(names)) <= known, word
    figures = cells_of("concepts.md", ["figure", "KL of", "mean per", "estimator"])
    attributes = {name for row in figures for name in quoted(row[0]) if "." in name}
    assert attributes and attributes <= known


def test_the_picture_shows_calls_that_exist():
    page = (DOCS / "concepts.md").read_text(encoding="utf-8")
    owners = {"TextVectorEnv": TextVectorEnv, "Collector": Collector, "Policy": Policy}
    owners |= {"Learner": Learner, "Trainer": Trainer, "Algorithm": Algorithm}
    arrows = re.findall(r"^ *(\w+)->>(\w+): (.*)$", page, flags=re.M)
    assert {name for caller, called, _ in arrows for name in (caller, called)} == set(owners)
    for _, called, label in arrows:
        methods = re.findall(r"(\w+)\(", label)
        assert methods, label
        assert all(callable(getattr(owners[called], method)) for method in methods), label


def test_the_tree_of_the_readme_names_all_folders_and_top_files():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("## Layout")[1].split("```")[1].strip("\n").splitlines()
    named = {}
    for line in tree:
        indent, name, phrase = re.fullmatch(r"( *)([\w.]+/?) +(\S.*)", line).groups()
        assert len(line) <= 100 and phrase, line
        if not indent:
            assert name.endswith("/") and (ROOT / name).is_dir(), name
            top = name.rstrip("/")
            assert top not in named
            named[top] = []
        else:
            named[top].append(name)
    for package in PACKAGES:
        files = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
        folders = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
        assert sorted(named[package]) == sorted(files | folders), package


PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert sorted(link for link in links if not (page.parent / link).exists()) == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name
)
def test_files_and_modules_named_in_a_page_exist(page):
    tops = "agents|benchmarks|docs|examples|policies|tests|textenv"
    text = page.read_text(encoding="utf-8")
    files = set(re.findall(rf"(?:{tops})/[\w/]+(?:\.\w+)+", text))
    assert sorted(name for name in files if not (ROOT / name).exists()) == []
    for dotted in set(re.findall(rf"`((?:{tops})(?:\.\w+)+)", text)):
        pkgutil.resolve_name(dotted)  # raises for what is no module and no name in one


def test_options_named_beside_a_command_exist():
    everywhere = {option.flag for option in options_of(Common)} | {"--help"}
    flags = {}
    for name, command in COMMANDS.items():
        every = [{}, *({"algorithm": a} for a in ALGORITHMS)] if name == "train" else [{}]
        groups = [g for choices in every for g in groups_of(command.settings, choices)]
        flags[name] = {option.flag for group in groups for option in group.options}
        flags[name] |= {f"--{group.name}" for group in groups if group.choice}
    seen = 0
    for page in (path for path in PAGES if path.name not in ("CHANGELOG.md", "command_line.md")):
        for line in page.read_text(encoding="utf-8").splitlines():
            line = re.sub(r"torchrun .*? -m ", "", line)  # what starts it has options of its own
            named = re.findall(rf"textenv ({'|'.join(flags)})\b(?!:)", line)
            if named:
                known = everywhere.union(*(flags[name] for name in named))
                options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", line))
                assert options <= known, line
                seen += len(options)
    assert seen > 20
