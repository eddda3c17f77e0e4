import math
import re
import sys
from html.parser import HTMLParser

import pytest

from agents.evaluation import Interval
from agents.report import Curve, TableData, TokenTrace, write_report
from textenv.errors import MissingExtraError

EVIL = '<script>alert("x")</script>&'
VOID = {"meta", "input"}


class Page(HTMLParser):
    """Elements of a page; fails where they are not properly nested."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.cells: list[str] = []
        self.answers: list[str] = []
        self.text: dict[str, str] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")
        if dict(attributes).get("class") == "answer":
            self.answers.append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data
        if "td" in self.open:
            self.cells[-1] += data
        if self.open and self.open[-1] == "span" and "article" in self.open:
            self.answers[-1] += data

    def all(self, tag: str, **wanted) -> list[dict]:
        found = [attributes for name, attributes in self.elements if name == tag]
        return [a for a in found if all(a.get(key) == value for key, value in wanted.items())]


def parts() -> dict:
    return {
        "tables": [TableData(f"T {EVIL}", ["", EVIL], [["a", Interval(0.5, 0.4, 0.6)]], EVIL)],
        "curves": [
            Curve(f"C {EVIL}", f"KL $x_1$ {EVIL}", "裁判", {EVIL: [(0, 0), (1, 1)], "_b": []}),
            Curve("gap", "x", "y", {"a": [(0, 1), (1, math.nan), (2, 3)]}),
        ],
        "traces": [
            TokenTrace(f"A {EVIL}", EVIL, [EVIL, "\n", "中", ""], {"KL": [0.5, -1, 0, math.nan]}),
            TokenTrace("B", "p", ["x"], {"KL": [0.25], f"reward {EVIL}": [2.0]}),
        ],
        "facts": {"seed": 3, EVIL: EVIL},
    }


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    assert write_report(path, f"Title {EVIL}", f"One.\n\n{EVIL}", **parts()) == path
    return path.read_text(encoding="utf-8")


def test_the_page_is_properly_nested_and_complete(html):
    page = Page(html)
    assert len(page.all("svg")) == 2
    assert len(page.all("article")) == 2
    assert page.cells[:2] == ["a", "0.500 [0.400, 0.600]"]
    assert page.text["h1"] == f"Title {EVIL}"


def test_nothing_comes_from_a_network_and_nothing_runs(html):
    page = Page(html)
    names_of_formats = r' xmlns(:\w+)?="[^"]*"'
    assert "//" not in re.sub(names_of_formats, "", html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        assert all(attributes.get(name, "#").startswith("#") for name in ("href", "xlink:href"))
    assert "@import" not in html and not re.search(r"url\((?!#)", html)


def test_texts_are_escaped_everywhere(html):
    assert "<script" not in html
    places = html.count("&lt;script&gt;")
    assert places >= 12  # title twice, intro, table, curve, trace, facts


def test_numbers_are_set_as_numbers_and_words_as_words(tmp_path):
    rows = [["a", 1.0, "-", "0.5 [0.4, 0.6]", "two"], ["3", 2, "", "nan", "3"]]
    path = write_report(tmp_path / "r.html", "x", tables=[TableData("T", list("abcde"), rows)])
    page = Page(path.read_text(encoding="utf-8"))
    kinds = [cell["class"] for cell in page.all("td")]
    assert kinds == ["words", "number", "number", "number", "words"] * 2
    assert [heading["class"] for heading in page.all("th")] == kinds[:5]
    assert page.cells[:5] == ["a", "1.000", "-", "0.5 [0.4, 0.6]", "two"]


def test_an_answer_reads_as_its_tokens(html):
    assert Page(html).answers == [f"{EVIL}\n中·", "x"]


def test_ids_are_unique_and_lead_somewhere(html):
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(|href=")#([^")]+)', html)
    used += [label["for"] for label in page.all("label")]
    assert used and set(used) <= set(ids)


def test_a_measure_is_chosen_by_a_button_and_the_first_is_chosen_at_first(html):
    page = Page(html)
    buttons = page.all("input", type="radio", name="measure")
    assert ["checked" in button for button in buttons] == [True, False]
    for number, button in enumerate(buttons):
        assert button["id"] == f"measure-{number}"
        assert f"#measure-{number}:checked ~ .traces .token" in html


def test_colours_have_the_sign_and_the_size_of_the_numbers(html):
    tokens = Page(html).all("span", **{"class": "token"})
    assert [token["title"].splitlines()[0] for token in tokens] == [
        "KL 0.5000",
        "KL -1.0000",
        "KL 0.0000",
        "KL nan",
        "KL 0.2500",
    ]
    colours = [re.search(r"--m0:([^;]+);", token["style"])[1] for token in tokens]
    found = [re.fullmatch(r"rgb\((\d+ \d+ \d+) / ([\d.]+)\)", colour) for colour in colours]
    assert colours[3] == "transparent"
    plus, minus, zero, _, less = found
    assert plus[1] == less[1] == zero[1] != minus[1]
    assert float(minus[2]) == 0.75 and float(zero[2]) == 0
    assert float(plus[2]) == pytest.approx(2 * float(less[2]), abs=0.011)  # one scale for all
    assert "--m1" in tokens[4]["style"] and "--m1" not in tokens[0]["style"]


def test_labels_are_shown_as_they_are(html):
    shown = Page(html).text["text"]
    assert "$x_1$" in shown and "裁判" in shown and "_b" in shown


def test_the_same_report_is_the_same_file(tmp_path, html):
    again = write_report(tmp_path / "r.html", f"Title {EVIL}", f"One.\n\n{EVIL}", **parts())
    assert again.read_text(encoding="utf-8") == html


def test_an_empty_report_is_a_page(tmp_path):
    page = Page(write_report(tmp_path / "r.html", "Nothing").read_text(encoding="utf-8"))
    assert page.text["h1"] == "Nothing" and not page.all("h2")


def test_control_characters_and_half_surrogates_do_no_harm(tmp_path):
    trace = TokenTrace("t", "p\x00", ["\x1b", "\ud800"], {})
    html = write_report(tmp_path / "r.html", "x", traces=[trace]).read_text(encoding="utf-8")
    assert "\x00" not in html and "\x1b" not in html
    assert Page(html).answers == ["\\x1b\\ud800"]


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="row 1 of 'T' has 1 cells for 2 columns"):
        TableData("T", ["a", "b"], [[1, 2], [1]])
    with pytest.raises(ValueError, match="'KL' of 't' has 1 numbers for 2 tokens"):
        TokenTrace("t", "p", ["a", "b"], {"KL": [0.0]})


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*textenv\[train\]"):
        write_report(tmp_path / "r.html", "x", curves=[Curve("c", "x", "y", {"a": [(0, 0)]})])
