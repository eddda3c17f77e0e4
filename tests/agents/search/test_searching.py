"""Searches on trees whose answers are all listed."""

import math

import numpy as np
import pytest
import torch
from gymnasium.wrappers.vector import TransformReward
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import Letters

from agents.evaluation import evaluate
from agents.search import (
    MCTS,
    BestFirst,
    BestOf,
    Budget,
    ByBoth,
    ByContinuations,
    BySearch,
    BySegment,
    ByStopping,
    ByToken,
    ByValue,
    best,
    generate,
    search,
)
from policies import TransformerConfig, TransformerPolicy
from policies.generation import generate_tokens
from textenv import Prompt, Reply, TextEnv, TextVectorEnv, World
from textenv.errors import OptionError, UnmetNeedError, UnscoredError, VocabularyMismatchError
from textenv.rewards import dense
from textenv.testing import exact
from textenv.trl import from_trl

torch.set_num_threads(1)
LETTERS, STEPS = 2, 3
INNER, ANSWERS = 1 + 2 + 4, 1 + 2 + 4 + 8  # beginnings that go on; answers
ALL = Budget(expansions=1000)
HOWS = {
    "mcts": MCTS(),
    "one leaf at a time": MCTS(leaves=1),
    "best value": MCTS(backup=best, leaf=ByStopping()),
    "value head": MCTS(leaf=ByValue()),
    "both": MCTS(leaf=ByBoth(2, 0.25)),
    "best first": BestFirst(),
    "best first by value": BestFirst(leaf=ByValue(), leaves=3),
}


def paid(tokens, salt=0):
    return float(np.random.default_rng([salt, *tokens]).random())


def reward(episodes):
    return [paid(episode.tokens.tolist()) for episode in episodes]


def environment(rows=4, **options):
    given = {
        "prompts": ["a"],
        "reward": reward,
        "tokenizer": Letters(LETTERS, stop=True),
        "max_new_tokens": STEPS,
    }
    return TextVectorEnv(rows, **{**given, **options})


def small_policy(seed=0, letters=LETTERS, context=8):
    shape = TransformerConfig(letters + 1, context, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(shape, seed=seed)


POLICY = small_policy()


def searched(how, budget=ALL, prompts=("a",), policy=POLICY, envs=None, **options):
    envs = envs or environment()
    return search(policy, envs, [Prompt(p) for p in prompts], how, budget, **options)


# ---------------------------------------------------------------- the whole tree


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS.keys())
def test_a_budget_that_covers_the_tree_lists_every_answer(how):
    env = TextEnv(prompts=["a"], reward=reward, tokenizer=Letters(2, stop=True), max_new_tokens=3)
    listed = exact.enumerate_answers(env, "a")
    scores = {
        tuple(tokens[mask].tolist()): score
        for tokens, mask, score in zip(listed.tokens, listed.mask, listed.rewards, strict=True)
    }
    (found,) = searched(how)
    assert {a: one.score for a, one in found.tree.found.items()} == pytest.approx(scores)
    assert len(scores) == ANSWERS
    assert found.score == max(scores.values()) == scores[found.answer]
    assert found.spent.expansions == INNER
    assert found.spent.reward_calls == ANSWERS
    assert found.spent.visits == INNER + ANSWERS


@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from(sorted(HOWS)), st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_what_is_found_was_scored_and_the_budget_holds(salt, letters, name, expansions):
    """Whatever the tree: answers are whole, scored as listed, and no bound is passed."""

    def own(episodes):
        return [paid(episode.tokens.tolist(), salt) for episode in episodes]

    envs = environment(reward=own, tokenizer=Letters(letters, stop=True))
    policy = small_policy(salt, letters)
    budget = Budget(expansions, reward_calls=30)
    (found,) = searched(HOWS[name], budget, policy=policy, envs=envs, seed=salt)
    assert found.spent.expansions <= expansions
    assert found.spent.reward_calls == len(found.tree.found) <= 30
    for answer, one in found.tree.found.items():
        assert one.score == pytest.approx(paid(answer, salt))
        assert len(answer) == STEPS or answer[-1] == letters
        assert letters not in answer[:-1]
    assert found.score == max(one.score for one in found.tree.found.values())
    node = found.tree.root
    while node.moves:  # visits add up wherever a tree was grown by MCTS
        assert len(node.moves) == len(node.priors) == len(node.visits)
        assert node.priors.sum() == pytest.approx(1)
        node = node.children[int(node.visits.argmax())]


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("how", [HOWS["value head"], HOWS["best value"]])
@pytest.mark.parametrize("rows", [512, INNER])
def test_every_beginning_is_encoded_once(how, rows):
    (found,) = searched(how, rows=rows)
    beginnings = {(*found.tree.prompt, *a[:k]) for a in found.tree.found for k in range(len(a))}
    assert found.spent.encoded_tokens == len(beginnings) == INNER


def test_with_few_rows_some_are_encoded_again_and_the_answers_are_the_same():
    (plenty,) = searched(HOWS["value head"])
    (few,) = searched(HOWS["value head"], rows=1)
    assert few.spent.encoded_tokens > plenty.spent.encoded_tokens
    assert few.tree.found == plenty.tree.found


def test_a_prompt_is_encoded_once_for_all_of_its_answers():
    envs = environment(max_prompt_tokens=5)
    (found,) = searched(HOWS["value head"], prompts=["abaab"], envs=envs)
    assert found.spent.encoded_tokens == 5 + INNER - 1


def test_the_reward_is_asked_in_batches():
    sizes = []

    def counted(episodes):
        sizes.append(len(episodes))
        return reward(episodes)

    (found,) = searched(MCTS(leaves=4), envs=environment(rows=64, reward=counted))
    assert sum(sizes) == found.spent.reward_calls
    assert max(sizes) > 1


# ---------------------------------------------------------------- random numbers


@pytest.mark.parametrize("how", [*HOWS.values(), MCTS(branching=BySegment(2, 3)), BestOf()])
def test_a_seed_repeats_a_search_whatever_stands_beside_it(how):
    budget = Budget(expansions=5)
    one = searched(how, budget, prompts=["a", "b"], seed=3)
    again = searched(how, budget, prompts=["a", "b"], seed=3)
    alone = searched(how, budget, prompts=["a"], seed=3)
    assert [f.answer for f in one] == [f.answer for f in again]
    assert [f.tree.found for f in one] == [f.tree.found for f in again]
    assert alone[0].tree.found == one[0].tree.found


def test_other_seeds_give_other_continuations():
    found = {searched(MCTS(), Budget(1), seed=seed)[0].answer for seed in range(20)}
    assert len(found) > 1


# ---------------------------------------------------------------- moves and leaves


def test_only_the_likeliest_tokens_are_moves():
    (found,) = searched(MCTS(branching=ByToken(width=1), leaf=ByValue()))
    (answer,) = found.tree.found
    # With one move the only answer is the greedy one.
    assert [*answer] == generate_tokens(POLICY, [[0]], STEPS, temperature=0, stop_tokens=[2])[0]


def test_segments_have_the_shares_of_their_samples_as_priors():
    (found,) = searched(MCTS(branching=BySegment(tokens=2, width=8)), Budget(1))
    root = found.tree.root
    assert set(map(len, root.moves)) <= {1, 2}
    assert len(set(root.moves)) == len(root.moves)
    assert (root.priors * 8 == np.round(root.priors * 8)).all()
    assert root.priors.sum() == pytest.approx(1)


def test_a_delimiter_ends_a_segment():
    (found,) = searched(MCTS(branching=BySegment(tokens=3, width=16, until="b")), Budget(1))
    for move in found.tree.root.moves:
        assert 1 not in move[:-1]  # nothing follows a b


def test_what_a_leaf_is_worth():
    scores = np.array([0.0, 1.0])
    assert ByValue()(0.3, scores) == 0.3
    assert ByContinuations(2)(9.0, scores) == 0.5
    assert ByBoth(2, 0.25)(1.0, scores) == 0.75 * 1.0 + 0.25 * 0.5
    assert ByStopping()(9.0, np.array([2.0])) == 2.0


# ---------------------------------------------------------------- environments


def test_masks_and_strings_hold_in_a_search():
    envs = environment(min_new_tokens=2, forbidden_tokens=[1])
    (found,) = searched(MCTS(), envs=envs)
    assert set(found.tree.found) == {(0, 0, 2), (0, 0, 0)}
    (found,) = searched(MCTS(), envs=environment(stop_strings=["b"]))
    assert all(1 not in answer[:-1] for answer in found.tree.found)
    assert (0, 1) in found.tree.found
    assert found.tree.found[0, 1].text == "a"


def test_wrappers_and_dense_rewards_pay():
    doubled = TransformReward(environment(), lambda rewards: 2 * rewards)
    (found,) = searched(MCTS(), envs=doubled)
    assert found.score == pytest.approx(2 * searched(MCTS())[0].score)
    steps = dense(lambda batch: [1.0] * len(batch), name="step")
    (found,) = searched(MCTS(), envs=environment(reward=steps))
    assert found.score == STEPS


class Echo(World):
    def begin(self, record, rng):
        return "a"

    def reply(self, turn, rng):
        return Reply("b")


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(UnmetNeedError, match="world"):
        talk = environment(prompts=None, reward=None, world=Echo, max_turns=2, max_prompt_tokens=1)
        searched(MCTS(), envs=talk)
    with pytest.raises(UnmetNeedError, match="grammar"):
        written = environment(tokenizer="bytes", grammar="regex:[ab]*")
        searched(MCTS(), envs=written, policy=small_policy(letters=256))
    with pytest.raises(VocabularyMismatchError, match="4"):
        searched(MCTS(), policy=small_policy(letters=3))
    with pytest.raises(UnmetNeedError, match="cannot stop anywhere"):
        searched(MCTS(leaf=ByStopping()), envs=environment(min_new_tokens=1))
    with pytest.raises(UnscoredError, match="None"):
        silent = from_trl(lambda completions, **columns: [None] * len(completions))
        searched(MCTS(), envs=environment(reward=silent))
    with pytest.raises(OptionError, match="no end"):
        Budget(expansions=None)
    with pytest.raises(OptionError):
        MCTS(c_puct=-1.0)
    with pytest.raises(OptionError, match="visits"):
        searched(MCTS(returns=True), Budget(None, reward_calls=5))


# ---------------------------------------------------------------- generation and evaluation


def test_generate_and_evaluate_take_the_best_answer():
    envs = environment()
    (found,) = searched(MCTS(), envs=envs)
    assert generate(POLICY, ["a"], envs, MCTS(), ALL) == [found.text]
    by_search = evaluate(POLICY, envs, [Prompt("a")] * 2, answer=BySearch(MCTS(), ALL))
    assert by_search.scores.tolist() == [found.score] * 2
    assert by_search.samples[0].text == found.text
    tokens = torch.tensor([[*found.tree.prompt, *found.answer]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    with torch.no_grad():
        expected = POLICY.outputs(tokens, mask).logprobs.sum().item()
    assert by_search.logprobs[0] == pytest.approx(expected, abs=1e-5)
    assert not math.isnan(by_search.logprobs[1])
    masked = environment(forbidden_tokens=[1])
    again = evaluate(POLICY, masked, [Prompt("a")], answer=BySearch(MCTS(), ALL))
    assert not any(1 in answer for answer in again.answers)
    assert again.logprobs[0] < 0


def test_an_answer_is_finished_if_none_was():
    (found,) = searched(MCTS(leaf=ByValue()), Budget(1))
    assert found.spent.reward_calls == len(found.tree.found) == 1
