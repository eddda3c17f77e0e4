"""Pairwise judges: both orders, ties, principles, ranks and position bias."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.feedback import PairwiseJudge, position_bias, rank
from agents.feedback.from_models.judging import Comparison, Pair, agreed, unbiased, which_is_better
from agents.feedback.from_models.principles import principles_for, read_principles
from textenv.errors import PromptError


class Model:
    """Prefers the answer with the larger number, and the one shown first by `bias` nats."""

    def __init__(self, bias=0.0):
        self.bias = bias
        self.asked = []

    def write(self, requests):
        raise NotImplementedError

    def choose(self, questions, options=("A", "B")):
        self.asked += questions
        rows = []
        for question in questions:
            first, second = (float(text) for text in question.split("|")[1:3])
            p = 1 / (1 + math.exp(-(first - second + self.bias)))
            rows.append([p, 1 - p])
        return np.array(rows).reshape(len(questions), 2)


def plain(prompt, first, second, principle):
    return f"{prompt}|{first}|{second}|{principle}"


def judge(bias=0.0, **options):
    return PairwiseJudge(Model(bias), question=plain, **options)


def test_both_orders_are_asked_and_disagreement_is_a_tie():
    pairs = [Pair("p", "3", "0"), Pair("p", "1", "0"), Pair("p", "0", "1"), Pair("p", "0", "4")]
    one = judge(bias=2.0)
    comparisons = one.compare(pairs)
    assert [c.verdict for c in comparisons] == [1, 0.5, 0.5, 0]
    assert len(one.model.asked) == 8
    assert {q.rsplit("|", 1)[0] for q in one.model.asked[:2]} == {"p|3|0", "p|0|3"}
    first, second = comparisons[1].shown_first, comparisons[1].shown_second
    assert first == pytest.approx(1 / (1 + math.exp(-3)))  # 1 - 0 + 2
    assert second == pytest.approx(1 - 1 / (1 + math.exp(-1)))  # the other is chosen at 0 - 1 + 2
    assert [c.verdict for c in judge(2.0, decide=unbiased).compare(pairs)] == [1, 1, 0, 0]
    assert [c.verdict for c in judge(0.0).compare(pairs)] == [1, 1, 0, 0]


def test_verdicts_of_certain_and_of_undecided_models():
    first = np.array([1.0, 1.0, 0.0, 0.5, 0.5, 0.9])
    second = np.array([1.0, 0.0, 0.0, 0.5, 1.0, 0.2])
    np.testing.assert_array_equal(agreed(first, second), [1, 0.5, 0, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(unbiased(first, second), [1, 0.5, 0, 0.5, 1, 1])


def test_a_labeller_ranks_with_ties_and_asks_nothing_of_equal_answers():
    one = judge(bias=1.5)
    (ranking,) = rank(one, ["p"], [["1", "5", "1", "2", "9"]])
    # 1 and 2 are too close to tell for a judge with this bias.
    assert ranking.ranks == (3, 2, 3, 3, 1)
    assert len(one.model.asked) == 2 * (10 - 1)
    assert judge()("p", ["7", "7"]) == [0.5, 0.5]


@given(
    verdicts=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=6, max_size=6),
)
def test_the_sums_of_verdicts_are_in_the_order_of_bradley_and_terry(verdicts):
    """Four answers, all six pairs: strengths by Hunter's (2004) iteration, equal priors added."""
    table = {frozenset(p): v for p, v in zip(PLACES, verdicts, strict=True)}

    class Fixed:
        def choose(self, questions, options=("A", "B")):
            rows = []
            for question in questions:
                one, two = (int(text) for text in question.split("|")[1:3])
                verdict = table[frozenset((one, two))]
                rows.append(verdict if one < two else 1 - verdict)
            return np.stack([np.array(rows), 1 - np.array(rows)], 1)

    scores = PairwiseJudge(Fixed(), question=plain)("p", ["0", "1", "2", "3"])
    wins = np.full((4, 4), 0.3) - 0.3 * np.eye(4)
    for (i, j), verdict in zip(PLACES, verdicts, strict=True):
        wins[i, j] += verdict
        wins[j, i] += 1 - verdict
    games, strength = wins + wins.T, np.ones(4)
    for _ in range(400):
        strength = wins.sum(1) / (games / (strength[:, None] + strength)).sum(1)
        strength /= strength.sum()
    order = np.sign(np.round(strength[:, None] - strength, 9))
    np.testing.assert_array_equal(order, np.sign(np.subtract.outer(scores, scores)))


PLACES = [(i, j) for i in range(4) for j in range(i + 1, 4)]


def test_one_principle_is_drawn_for_a_prompt_and_stays():
    principles = [f"principle {n}" for n in range(5)]
    one = judge(principles=principles)
    for prompt in "abcdefgh":
        one(prompt, ["1", "2", "3"])
    used = {}
    for question in one.model.asked:
        prompt, _, _, principle = question.split("|")
        used.setdefault(prompt, set()).add(principle)
    assert all(len(some) == 1 for some in used.values())
    assert len(set.union(*used.values())) > 2
    again, other = judge(principles=principles), judge(principles=principles, seed=1)
    for some in (again, other):
        for prompt in "abcdefgh":
            some(prompt, ["1", "2", "3"])
    assert again.model.asked == one.model.asked != other.model.asked


def test_all_principles_are_averaged():
    class ByPrinciple(Model):
        def choose(self, questions, options=("A", "B")):
            self.asked += questions
            weights = [float(question.split("|")[3]) for question in questions]
            plain = super().choose(questions)[:, 0]
            first = np.abs(np.array(weights) - 1 + plain)  # 1 keeps the choice, 0 turns it round
            return np.stack([first, 1 - first], 1)

    model = ByPrinciple()
    everyone = PairwiseJudge(model, ["1", "1", "0"], None, question=plain)
    (comparison,) = everyone.compare([Pair("p", "2", "0")])
    p = 1 / (1 + math.exp(-2))
    assert comparison.shown_first == pytest.approx((2 * p + (1 - p)) / 3)
    assert comparison.shown_second == pytest.approx(comparison.shown_first)
    assert comparison.verdict == 1


def test_drawing_several_principles():
    assert principles_for("p", "abc", None, 0) == "abc" == principles_for("p", "abc", 7, 0)
    drawn = principles_for("p", "abcdef", 3, 0)
    assert len(set(drawn)) == 3 and drawn == principles_for("p", "abcdef", 3, 0)


def test_a_judge_against_reference_answers():
    against = judge().against({"p": "3", "q": "0"})
    assert [against("p", "4"), against("p", "2"), against("q", "0")] == [1, 0, 0.5]
    with pytest.raises(PromptError, match="no reference answer to the prompt 'r'"):
        against("r", "1")


def test_position_bias_by_hand():
    def said(prompt, shown_first, shown_second):
        return Comparison(Pair(prompt, "x", "y"), shown_first, shown_second, 0.5)

    # Chosen first: p both times, then once of two; q never.
    comparisons = [said("p", 0.9, 0.2), said("p", 0.8, 0.6), said("q", 0.3, 0.7)]
    bias = position_bias(comparisons)
    assert bias.first.mean == pytest.approx(((1 + 0.5) / 2 + 0) / 2)
    assert bias.consistent.mean == pytest.approx((0.5 + 0) / 2)
    undecided = position_bias([said("p", 0.5, 0.5)])
    assert undecided.first.mean == 0.5 and undecided.consistent.mean == 1
    with pytest.raises(PromptError, match="no comparisons"):
        position_bias([])


def test_comparisons_are_handed_on():
    kept = []
    judge(on_comparisons=kept.extend)("p", ["1", "2", "3"])
    assert [(c.pair.first, c.pair.second) for c in kept] == [("1", "2"), ("1", "3"), ("2", "3")]


def test_the_default_question_holds_everything():
    question = which_is_better("What?", "This.", "That.", "Be kind.")
    for part in ("What?", "A:\nThis.", "B:\nThat.", "Be kind.", "A or B"):
        assert part in question
    with pytest.raises(PromptError, match="at least one principle"):
        PairwiseJudge(Model(), [])


def test_files_of_principles(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("# mine\nBe kind.\n\n  Be brief. \n")
    assert read_principles(path) == ["Be kind.", "Be brief."]
    path.write_text("# nothing\n")
    with pytest.raises(PromptError, match=r"no principle in .*p\.txt"):
        read_principles(path)
