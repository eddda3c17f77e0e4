import numpy as np
import pytest

from agents.evaluation.wording import in_wordings, read_wordings, robustness, robustness_table
from textenv import Prompt
from textenv.errors import MalformedRecordError, PromptError


def test_the_measures_by_hand():
    scores = {"a": [1, 1, 0, 1], "b": [1, 0, 0, 1], "c": [1, 1, 0, 0]}
    found = robustness(scores)
    assert found.mean.mean == pytest.approx(7 / 12)
    assert {name: one.mean for name, one in found.by_wording.items()} == {
        "a": 0.75,
        "b": 0.5,
        "c": 0.5,
    }
    assert found.worst_wording == "b" and found.spread == 0.25
    assert found.worst_case.mean == 0.25 and found.changed.mean == 0.5


def test_equal_scores_in_all_wordings_have_no_spread():
    found = robustness({"a": [1, 0, 1], "b": [1, 0, 1]})
    assert found.spread == 0 and found.p_value == 1 and found.changed.mean == 0


def test_the_p_value_tells_a_wording_from_chance():
    rng = np.random.default_rng(0)
    noise = {name: rng.random(200) < 0.5 for name in "abcd"}
    assert robustness(noise).p_value > 0.05
    bad = noise | {"e": rng.random(200) < 0.2}
    assert robustness(bad).p_value < 0.001


def test_p_values_are_uniform_without_an_effect():
    rng = np.random.default_rng(1)
    values = [robustness({n: rng.normal(size=12) for n in "abc"}).p_value for _ in range(60)]
    assert 0.35 < np.mean(values) < 0.65 and min(values) < 0.2


def test_prompts_without_a_score_are_left_out():
    found = robustness({"a": [1, np.nan, 0], "b": [0, 1, 0]})
    assert found.mean.mean == 0.25
    with pytest.raises(ValueError, match="no prompt has a score in all wordings"):
        robustness({"a": [1, np.nan], "b": [np.nan, 1]})
    for wrong in ({"a": [1]}, {"a": [1], "b": [1, 0]}):
        with pytest.raises(ValueError, match="two wordings or more need scores of the same"):
            robustness(wrong)


def test_wordings_of_a_file(tmp_path):
    path = tmp_path / "wordings.txt"
    path.write_text("{prompt}\n\nPlease: {prompt}\\nAnswer:\n", encoding="utf-8")
    wordings = read_wordings(path)
    assert wordings == ["{prompt}", "Please: {prompt}\nAnswer:"]
    chat = Prompt("", {"answer": "4"}, messages=[{"role": "user", "content": "2 + 2?"}])
    put = in_wordings([Prompt("2 + 2?"), chat], wordings)
    text, talk = put[wordings[1]]
    assert text.text == "Please: 2 + 2?\nAnswer:" == talk.last_text
    assert talk.columns == {"answer": "4"}
    path.write_text("{prompt}\nno place\n", encoding="utf-8")
    with pytest.raises(MalformedRecordError, match=r"wordings.txt:2: the wording 'no place'"):
        read_wordings(path)
    with pytest.raises(PromptError, match="does not say where the prompt goes"):
        in_wordings([Prompt("a")], ["b"])


def test_the_table_has_a_row_a_policy():
    table = robustness_table({"p": robustness({"a": [1, 0], "b": [1, 1]})}, "title")
    assert table.row_count == 1 and len(table.columns) == 7
