"""Targets of expert iteration against listed answers, and runs that end there."""

from functools import partial

import numpy as np
import pytest
import torch
from letters import Letters
from test_searching import POLICY, environment, paid, small_policy

from agents import Learner
from agents.search import (
    MCTS,
    Budget,
    ExpertIteration,
    Regularised,
    SearchCollector,
    visit_counts,
)
from agents.search.expert_iteration import soft_targets
from textenv import TextEnv
from textenv.errors import UnmetNeedError
from textenv.testing import exact

torch.set_num_threads(1)
BETA = 0.2


def listed():
    env = TextEnv(
        prompts=["a"],
        reward=lambda episodes: [paid(e.tokens.tolist()) for e in episodes],
        tokenizer=Letters(2, stop=True),
        max_new_tokens=3,
    )
    return exact.enumerate_answers(env, "a")


ANSWERS = listed()
TOKENS, MASK = torch.from_numpy(ANSWERS.tokens), torch.from_numpy(ANSWERS.mask)


@torch.no_grad()
def logprobs_of(policy):
    return policy.outputs(TOKENS, MASK).logprobs.double().sum(1).numpy()


def learner(policy, target, how, budget, reference=None, env=None, **options):
    return Learner(
        policy,
        env or environment(),
        ExpertIteration(target=target, n_epochs=4),
        reference=reference,
        n_episodes=4,
        collector=partial(SearchCollector, how=how, budget=budget),
        **options,
    )


def test_soft_targets_by_hand():
    """Two moves; behind the first one two more, which earn 1 and 0 at beta = 1."""
    log = np.log([0.5, 0.5, 0.25, 0.75])
    targets = soft_targets(
        log, np.array([9.0, 0.5, 1.0, 0.0]), np.array([0, 0, 1, 1]), np.array([1, -1, -1, -1]), 1.0
    )
    below = np.log(0.25 * np.e + 0.75)
    first = 0.5 * np.exp(below) / (0.5 * np.exp(below) + 0.5 * np.exp(0.5))
    deep = 0.25 * np.e / (0.25 * np.e + 0.75)
    assert targets == pytest.approx([first, 1 - first, deep, 1 - deep])


def test_the_target_of_a_whole_tree_is_the_optimum():
    """The product of the targets on the way to each answer is pi_ref exp(r / beta) / Z."""
    reference = small_policy(5)
    made = learner(small_policy(), Regularised(BETA), MCTS(), Budget(100), reference)
    rollout = made.collect()
    one = rollout.groups == 0
    targets = Regularised(BETA)(rollout)
    of = {}
    for row in one.nonzero().flatten().tolist():
        ids = rollout.tokens[row][rollout.tokens[row] != POLICY.pad_token].tolist()
        of[tuple(ids)] = targets[row]
    found = []
    for tokens, mask in zip(ANSWERS.tokens, ANSWERS.mask, strict=True):
        ids = tokens[tokens != POLICY.pad_token].tolist()
        assert mask.sum() == len(ids) - 1
        found.append(sum(np.log(of[tuple(ids[:k])]) for k in range(2, len(ids) + 1)))
    expected = exact.optimum(logprobs_of(reference), ANSWERS.rewards, BETA)
    assert found == pytest.approx(expected.tolist(), abs=1e-4)


def test_visits_of_a_state_are_shared_out():
    made = learner(small_policy(), visit_counts, MCTS(returns=True), Budget(None, visits=40))
    rollout = made.collect()
    shares = visit_counts(rollout)
    state = rollout.extra["state"].long().numpy()
    assert np.bincount(state, shares) == pytest.approx(np.ones(state.max() + 1))
    roots = rollout.mask.int().argmax(1) == 1
    visits = rollout.extra["visits"].numpy()
    assert visits[roots.numpy() & (rollout.groups == 0).numpy()].sum() == 39  # and the root's own
    scored = rollout.scores[rollout.finished]
    assert len(scored) == 4  # one for each prompt
    assert scored.max() == pytest.approx(ANSWERS.rewards.max())


def test_the_loss_is_the_cross_entropy_to_the_targets():
    made = learner(small_policy(), visit_counts, MCTS(returns=True), Budget(None, visits=30))
    rollout = made.collect()
    weights = made.algorithm.advantages(rollout)
    outputs = made.outputs(rollout)
    batch = type(rollout)(**{**vars(rollout), "advantages": weights})
    state = rollout.extra["state"].long()
    chosen = outputs.logprobs.sum(1)
    total, by_state = 0.0, 0.0
    for number in state.unique():
        moves = state == number
        visits = rollout.extra["visits"][moves]
        by_state += visits.sum() * -(visits / visits.sum() * chosen[moves]).sum()
        total += visits.sum()
    assert made.algorithm.loss(batch, outputs).item() == pytest.approx((by_state / total).item())


@pytest.mark.parametrize("rules", [{"min_new_tokens": 2}, {"allowed_tokens": [1, 2]}])
def test_log_probabilities_are_of_what_the_search_may_choose(rules):
    """A move is one token here, and all are looked at: its prior is the policy's probability."""
    made = learner(small_policy(), Regularised(BETA), MCTS(), Budget(30), env=environment(**rules))
    rollout = made.collect()
    said = rollout.logprobs.double().sum(1).exp()
    torch.testing.assert_close(said, rollout.extra["prior"], atol=1e-5, rtol=1e-4)
    again = made.outputs(rollout).logprobs.detach()
    torch.testing.assert_close(again, rollout.logprobs, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(torch.tensor(made.update().metrics["loss"]))


def test_an_update_tells_what_its_searches_have_read():
    made = learner(small_policy(), Regularised(BETA), MCTS(), Budget(30))
    told = made.update().metrics["rollout_encoded_tokens"]
    assert told >= made.collector.spent["encoded_tokens"] > 0
    assert made.collector.report() == {"rollout_encoded_tokens": 0.0}


def test_prompts_of_groups_are_searched_once():
    """Four rows are two groups, so four prompts are those of two resets."""
    asked = {"prompts": ["a", "b", "aa", "bb", "ab"], "group_size": 2}
    how = {"how": MCTS(), "budget": Budget(5)}
    collector = SearchCollector(small_policy(), environment(**asked), seed=3, **how)
    rollout = collector.collect_episodes(4)
    rows = [int((rollout.groups == group).nonzero()[0]) for group in range(4)]
    found = [rollout.tokens[row, : int(rollout.prompt_lengths[row])].tolist() for row in rows]
    envs, expected = environment(**asked), []
    for seed in (3, None):
        envs.reset(seed=seed)
        expected += [envs.start_of(row).opening.tokens.tolist() for row in (0, 2)]
    assert found == expected


def test_searches_that_take_no_move_are_named_and_a_prompt_of_none_counts_nothing():
    with pytest.raises(UnmetNeedError, match="larger budget"):
        learner(small_policy(), Regularised(BETA), MCTS(), Budget(1)).update()
    made = learner(small_policy(), Regularised(BETA), MCTS(), Budget(30))
    rollout = made.collect()
    batch = type(rollout)(**{**vars(rollout), "advantages": torch.zeros(len(rollout))})
    assert made.algorithm.loss(batch, made.outputs(rollout)).item() == 0


def distance(policy, law):
    return exact.total_variation(logprobs_of(policy), law)


def test_the_regularised_target_ends_at_the_leashed_optimum():
    policy = small_policy()
    reference = policy.frozen_copy()
    law = exact.optimum(logprobs_of(reference), ANSWERS.rewards, BETA)
    made = learner(
        policy, Regularised(BETA), MCTS(), Budget(30), reference, learning_rate=1e-2, seed=1
    )
    before = distance(policy, law)
    for _ in range(25):
        made.update()
    assert distance(policy, law) < 0.05 < before


def test_visit_counts_end_at_one_answer():
    """One leaf at a time: leaves that are visited together spread more than the counts ask for."""
    policy, how = small_policy(), MCTS(returns=True, leaves=1)
    made = learner(policy, visit_counts, how, Budget(None, visits=30), learning_rate=1e-2, seed=1)
    for _ in range(30):
        made.update()
    probabilities = np.exp(logprobs_of(policy))
    assert probabilities.max() > 0.95
    assert ANSWERS.rewards[probabilities.argmax()] > np.quantile(ANSWERS.rewards, 0.7)


def test_a_run_is_resumed_bit_for_bit(tmp_path):
    """With more prompts than an update searches, which are drawn in a random order."""

    def make():
        how, env = MCTS(returns=True), environment(prompts=["a", "b", "ab", "ba", "aa", "bb"])
        return learner(small_policy(), visit_counts, how, Budget(None, visits=20), env=env)

    straight, first = make(), make()
    for _ in range(2):
        straight.update()
    first.update()
    first.save(tmp_path / "run")
    second = make()
    second.load(tmp_path / "run")
    second.update()
    for one, other in zip(straight.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_rollouts_of_no_search_are_refused():
    made = Learner(small_policy(), environment(), ExpertIteration(), n_episodes=4)
    with pytest.raises(UnmetNeedError, match="SearchCollector"):
        made.update()
    collector = SearchCollector(small_policy(), environment())
    with pytest.raises(UnmetNeedError, match="n_episodes"):
        collector.collect_steps(4)
