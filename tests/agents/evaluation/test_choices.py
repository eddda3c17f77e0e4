import math

import numpy as np
import pytest
from text_policies import text_policy

from agents.evaluation.choices import (
    OptionScores,
    Question,
    accuracies,
    accuracies_by_shots,
    cloze,
    label_probabilities,
    score_options,
)
from agents.evaluation.continuations import Scored, score_continuations
from agents.evaluation.prompting import Layout, Worked, few_shot
from textenv.errors import PromptError


@pytest.fixture(scope="module")
def policy():
    return text_policy("ours")


def scored_as(logprobs, options, answer, alone=None, tokens=None):
    """Scores of options that are known."""
    tokens = tokens or [1] * len(options)
    made = [Scored(*both, False) for both in zip(logprobs, tokens, strict=True)]
    without = alone and [Scored(logprob, 1, False) for logprob in alone]
    return OptionScores(Question("?", options, answer), made, without)


def test_options_are_compared_by_five_measures():
    one = scored_as([-4.0, -6.0, -9.0], ["ab", "abcd", "好好好"], 1, [-1.0, -3.5, -8.0], [1, 3, 4])
    assert one.by_measure["acc"].tolist() == [-4, -6, -9]
    assert one.by_measure["acc_norm"].tolist() == [-2, -1.5, -3]
    assert one.by_measure["acc_bytes"].tolist() == [-2, -1.5, -1]
    assert one.by_measure["acc_tokens"].tolist() == [-4, -2, -2.25]
    assert one.by_measure["acc_mutual_info"].tolist() == [-3, -2.5, -1]
    best = {measure: one.chosen(measure) for measure in one.by_measure}
    assert best == {
        "acc": 0,
        "acc_norm": 1,
        "acc_bytes": 2,
        "acc_tokens": 1,
        "acc_mutual_info": 2,
    }
    assert one.probabilities == pytest.approx(np.exp([-4, -6, -9]) / np.exp([-4, -6, -9]).sum())


def test_accuracies_are_the_shares_of_right_choices():
    right = scored_as([-1.0, -2.0], ["ab", "cd"], 0)
    wrong = scored_as([-1.0, -2.0], ["ab", "cd"], 1)
    found = accuracies([right, right, right, wrong])
    assert found["acc"].mean == 0.75 and found["greedy"].mean == 0
    assert found["acc"].low < 0.75 < found["acc"].high
    assert "acc_mutual_info" not in found


def test_options_stand_behind_the_prompt_with_what_is_between_and_behind(policy):
    question = Question("The cat", ["sat", "the dog"], 0)
    (one,) = score_options(policy, [question], unconditional=True)
    behind = score_continuations(policy, [("The cat", " sat"), ("The cat", " the dog")])
    assert one.logprobs == pytest.approx([s.logprob for s in behind])
    alone = score_continuations(policy, [("", " sat"), ("", " the dog")])
    assert [s.logprob for s in one.unconditional] == pytest.approx([s.logprob for s in alone])
    (filled,) = score_options(policy, [cloze("The __ sat.", ["cat", "dog"])])
    expected = score_continuations(policy, [("The", " cat sat."), ("The", " dog sat.")])
    assert filled.logprobs == pytest.approx([s.logprob for s in expected])
    assert filled.unconditional is None


def test_labels_sum_over_their_words_and_over_what_a_prompt_about_nothing_says(policy):
    words = {"animal": ["cat", "dog"], "thing": ["mat"]}
    texts = ["The __ sat.", "the other __ sat on the mat"]
    found = label_probabilities(policy, texts, words)
    for row, text in zip(found, texts, strict=True):
        before, after = text.split("__")
        each = [
            math.exp(s.logprob)
            for s in score_continuations(
                policy, [(before, word + after) for word in ("cat", "dog", "mat")]
            )
        ]
        total = sum(each)
        assert row == pytest.approx([(each[0] + each[1]) / total, each[2] / total])
    neutral = label_probabilities(policy, ["a __ b"], words)[0]
    calibrated = label_probabilities(policy, texts, words, content_free="a __ b")
    expected = found / neutral
    assert calibrated == pytest.approx(expected / expected.sum(1, keepdims=True))
    alike = label_probabilities(policy, ["a __ b"], words, content_free="a __ b")
    assert alike == pytest.approx(np.full((1, 2), 0.5))


def test_questions_that_cannot_be_asked_are_named(policy):
    with pytest.raises(PromptError, match="has 1 options and the answer 0: give two"):
        Question("?", ["a"], 0)
    with pytest.raises(PromptError, match="has 2 options and the answer 2"):
        Question("?", ["a", "b"], 2)
    with pytest.raises(PromptError, match="has 2 blanks '__'; it must have one"):
        cloze("__ and __", ["a", "b"])
    with pytest.raises(PromptError, match="there are no questions"):
        accuracies([])
    with pytest.raises(PromptError, match="has no answer to compare with"):
        accuracies(score_options(policy, [Question("a", ["b", "c"])]))


def test_accuracies_by_the_number_of_worked_examples(policy):
    layout = Layout("", ":", ".")
    examples = [Worked("a", "b"), Worked("ab", "a")]
    questions = [Question("ab", ["a", "the"], 0), Question("the", ["cat", "b"], 1)]
    found = accuracies_by_shots(policy, questions, examples, [0, 1], layout)
    for shots, shown in ((0, []), (1, examples[:1])):
        put = [Question(few_shot(shown, q.prompt, layout), q.options, q.answer) for q in questions]
        assert found[shots] == accuracies(score_options(policy, put))
    with pytest.raises(PromptError, match="2 worked examples are asked for, and there are 1"):
        accuracies_by_shots(policy, questions, examples, [2], layout)
