"""Puzzles of reasoning-gym as prompts and rewards."""

import copy
import json
import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from solved import scores

from textenv.errors import MissingExtraError, PromptError
from textenv.prompts import Prompt, load_prompts
from textenv.tasks import reasoning_gym_task, tagged

SEEDS = np.array([0, 7, 2**32 + 7, 2**64 - 1], dtype=np.uint64)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtraError, match=r"textenv\[tasks\]"):
        reasoning_gym_task("chain_sum")


@pytest.fixture(scope="module", autouse=True)
def package():
    return pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")


@pytest.fixture(scope="module")
def sums():
    return reasoning_gym_task("chain_sum", min_terms=2, max_terms=2, min_digits=2, max_digits=2)


def test_prompts_are_a_pure_function_of_the_seed(sums):
    random.seed(1)
    first = sums.prompts.draw(SEEDS)
    random.seed(2)
    alone = [sums.prompts.draw(SEEDS[i : i + 1])[0] for i in (3, 2, 1, 0)]
    assert [p.text for p in first] == [p.text for p in reversed(alone)]
    assert len({p.text for p in first}) == 3 and first[1].text == first[2].text
    assert load_prompts(sums.prompts) is sums.prompts


def test_the_verifier_knows_right_from_wrong(sums, package):
    prompts = sums.prompts.draw(SEEDS)
    right = [p.columns["answer"] for p in prompts]
    assert scores(sums, prompts, [f" {a}\n" for a in right]) == [1.0] * 4
    wrong = scores(sums, prompts, [str(int(a) + 1) for a in right])
    assert max(wrong) < 1.0
    # Where the right one is part of the answer, reasoning-gym pays its share of the length.
    assert scores(sums, prompts, [f"{a} or so" for a in right]) == pytest.approx(
        [len(a) / len(f"{a} or so") for a in right]
    )
    # The sum itself, computed here.
    terms = prompts[0].text.split(":")[-1].rsplit("=")[0].split()
    total = int(terms[0]) + int(terms[2]) * (1 if terms[1] == "+" else -1)
    assert str(total) == right[0]


def test_prompts_that_were_saved_are_verified_all_the_same(package):
    """Through JSON tuples become lists, and keys texts: the verifier never sees those."""
    task = reasoning_gym_task("countdown", min_numbers=3, max_numbers=3)
    prompts = task.prompts.draw(SEEDS)
    back = [Prompt.from_json(json.loads(json.dumps(p.to_json()))) for p in prompts]
    right = [p.columns["answer"] for p in prompts]
    assert scores(task, back, right) == [1.0] * 4


def test_template_and_extraction(sums):
    task = reasoning_gym_task("chain_sum", template=lambda q: f"{q} Think.", extract=tagged)
    (prompt,) = task.prompts.draw(SEEDS[:1])
    right = prompt.columns["answer"]
    assert prompt.text.endswith(" Think.")
    assert scores(task, [prompt] * 2, [f"Hm. <answer>{right}</answer>", right]) == [1.0, 0.0]


def test_another_seed_of_the_dataset_makes_other_puzzles():
    texts = [
        reasoning_gym_task("chain_sum", seed=seed).prompts.draw(SEEDS[:1])[0].text
        for seed in (0, 0, 10**6)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_answers_over_which_a_verifier_stumbles_are_wrong(package):
    task = reasoning_gym_task("prime_factorization")
    (prompt,) = task.prompts.draw(SEEDS[:1])
    dataset = task.prompts.dataset
    with pytest.raises(ValueError):
        dataset.score_answer("zz )(", dataset[0])
    texts = ["zz )(", "", prompt.columns["answer"]]
    assert scores(task, [prompt] * 3, texts)[::2] == [0.0, 1.0]


@pytest.mark.parametrize("name", ["countdown", "fraction_simplification", "puzzle24"])
def test_nothing_is_paid_where_no_answer_was_found(name, package):
    """Their verifiers pay 0.01 for it."""
    task = reasoning_gym_task(name, extract=tagged)
    (prompt,) = task.prompts.draw(SEEDS[:1])
    assert task.prompts.dataset.score_answer(None, task.prompts.dataset[0]) > 0
    texts = ["", "I do not know", "<answer> </answer>", "<answer>"]
    assert scores(task, [prompt] * 4, texts) == [0.0] * 4
    bare = reasoning_gym_task(name, extract=lambda text: text)
    assert scores(bare, [prompt] * 2, ["", " \n"]) == [0.0] * 2


def test_wrong_answers_that_verifiers_take_for_right(package):
    halting = reasoning_gym_task("game_of_life_halting")
    prompts = halting.prompts.draw(np.arange(8, dtype=np.uint64))
    right = [p.columns["answer"] for p in prompts]
    wrong = ["False" if answer == "True" else "True" for answer in right]
    assert set(right) == {"True", "False"}
    assert scores(halting, prompts, right) == [1.0] * 8
    assert scores(halting, prompts, [f"{answer.lower()}." for answer in right]) == [1.0] * 8
    for texts in (wrong, ["I do not know"] * 8, ["True or False"] * 8):
        assert scores(halting, prompts, texts) == [0.0] * 8

    four = reasoning_gym_task("puzzle24")
    prompts = four.prompts.draw(np.arange(4, dtype=np.uint64))
    right = [p.columns["answer"] for p in prompts]
    assert scores(four, prompts, right) == [1.0] * 4
    assert scores(four, prompts, right[1:] + right[:1]) == [0.0] * 4  # 24 of other numbers


@pytest.mark.slow
@pytest.mark.filterwarnings(  # a package of reasoning-gym's leaves its file open
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_the_page_lists_what_is_paid_for_a_refusal(package):
    """Over twenty puzzles of every kind; the table in docs/rewards.md is this."""
    paid = {}
    for name in sorted(package.factory.DATASETS):
        if name == "composite":  # of the others, and has no puzzles of its own
            continue
        task = reasoning_gym_task(name)
        prompts = task.prompts.draw(np.arange(20, dtype=np.uint64))
        most = max(scores(task, prompts, ["I do not know"] * 20))
        if most > 0:
            paid.setdefault(f"{most:.2g}", []).append(f"`{name}`")
    rows = [f"| {most} | {', '.join(paid[most])} |" for most in sorted(paid, key=float)]
    page = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in page, rows


def test_kinds_with_a_fixed_number_of_puzzles(package):
    task = reasoning_gym_task("word_ladder", size=3)
    seeds = np.array([1, 4, 2], dtype=np.uint64)
    texts = [p.text for p in task.prompts.draw(seeds)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == task.prompts.dataset[1]["question"]


@pytest.mark.parametrize("name", ["letter_counting", "basic_arithmetic", "graph_color", "maze"])
def test_other_kinds(name):
    task = reasoning_gym_task(name)
    prompts = task.prompts.draw(SEEDS)
    right = [p.columns["answer"] for p in prompts]
    assert max(scores(task, prompts, ["no idea"] * 4)) < 0.5
    if None not in right:
        assert scores(task, prompts, right) == [1.0] * 4


def test_copies_and_pickles(sums):
    assert copy.deepcopy(sums.prompts) is sums.prompts
    assert copy.deepcopy(sums.reward) is sums.reward
    back = pickle.loads(pickle.dumps(sums))
    prompts = back.prompts.draw(SEEDS)
    assert [p.text for p in prompts] == [p.text for p in sums.prompts.draw(SEEDS)]
    assert scores(back, prompts, [p.columns["answer"] for p in prompts]) == [1.0] * 4


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("chain_sums", {}, "did you mean chain_sum"),
        ("chain_sum", {"terms": 3}, "terms"),
        ("chain_sum", {"min_terms": 5, "max_terms": 2}, "cannot make 'chain_sum'"),
    ],
)
def test_kinds_and_settings_that_are_none(name, config, message):
    with pytest.raises(PromptError, match=message):
        reasoning_gym_task(name, **config)
