"""Rollouts put together, and rollouts of the past learned from again."""

from dataclasses import replace

import pytest
import torch
from toys import letters_env

from agents import RLOO, Learner, OffPolicyGradient, Rollout, SoftQLearning
from policies import TransformerPolicy

torch.set_num_threads(1)


def rollout_of(length, groups, number):
    """Two sequences whose every entry tells which rollout it is of."""
    full = torch.full((2, length), number)
    return Rollout(
        tokens=full,
        mask=torch.ones(2, length).bool(),
        logprobs=-full.float(),
        values=full.float(),
        rewards=full.float(),
        bootstrap_values=torch.full((2,), float(number)),
        terminated=torch.tensor([True, False]),
        truncated=torch.tensor([False, True]),
        scores=torch.full((2,), float(number)),
        groups=torch.tensor(groups),
    )


def test_cat():
    one, two = rollout_of(2, [0, 3], 1), rollout_of(4, [0, 0], 2)
    both = Rollout.cat([one, two])
    assert len(both) == 4
    assert both.tokens.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [2] * 4, [2] * 4]
    assert both.mask.sum(1).tolist() == [2, 2, 4, 4]
    assert both.num_tokens == one.num_tokens + two.num_tokens
    assert both.scores.tolist() == [1, 1, 2, 2]
    assert both.terminated.tolist() == [True, False, True, False]
    # The groups of the second begin after those of the first.
    assert both.groups.tolist() == [0, 3, 4, 4]
    assert both.ref_logprobs is None and both.action_masks is None


def test_cat_keeps_the_masks_of_each():
    tables = [
        torch.tensor([[True, True, True], [True, False, False]]),
        torch.tensor([[True, True, True], [False, True, False], [False, False, True]]),
    ]
    ids = [torch.tensor([[0, 1], [1, 0]]), torch.tensor([[2, 1, 0], [0, 1, 2]])]
    parts = [
        replace(rollout_of(i.shape[1], [0, 0], 1), mask_table=t, mask_ids=i)
        for t, i in zip(tables, ids, strict=True)
    ]
    together = torch.cat([part.action_masks for part in parts])
    assert torch.equal(Rollout.cat(parts).action_masks, together)


def test_cat_takes_no_mask_for_one_that_allows_every_token():
    table = torch.tensor([[True, True, True], [False, True, False]])
    ids = torch.tensor([[0, 1], [1, 0]])
    masked = replace(rollout_of(2, [0, 0], 1), mask_table=table, mask_ids=ids)
    plain = rollout_of(3, [0, 0], 1)
    for parts in ([masked, plain], [plain, masked]):
        allowed = [
            torch.ones(6, 3).bool() if part is plain else masked.action_masks for part in parts
        ]
        assert torch.equal(Rollout.cat(parts).action_masks, torch.cat(allowed))


def test_cat_of_rollouts_that_hold_different_things():
    one = rollout_of(2, [0, 1], 1)
    other = replace(one, ref_logprobs=one.logprobs)
    with pytest.raises(ValueError, match=r"ref_logprobs.*others do not"):
        Rollout.cat([one, other])


# --- replay ---------------------------------------------------------------------------------------


def learner_of(algorithm, **options):
    envs = letters_env(8, group_size=4)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16, seed=0)
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(5)
    reference = policy.frozen_copy()
    return Learner(policy, envs, algorithm, reference=reference, n_episodes=8, **options)


def test_without_replay_a_rollout_is_left_as_it_is():
    learner = learner_of(RLOO())
    rollout = learner.collect()
    assert learner.with_replay(rollout) is rollout
    assert len(learner.replay) == 0


def test_replay_holds_the_last_rollouts_and_asks_the_present_policy():
    learner = learner_of(OffPolicyGradient(replay=2), learning_rate=0.05)
    lengths = []
    for _ in range(3):
        learned, _ = learner.learn_from(learner.collect())
        lengths.append(len(learned))
    assert lengths == [8, 16, 16]
    fresh = learner.collect()
    together = learner.with_replay(fresh)
    assert len(learner.replay) == 2 and learner.replay[-1] is fresh
    with torch.no_grad():
        now = learner.outputs(together)
    torch.testing.assert_close(together.present_logprobs, now.logprobs)
    torch.testing.assert_close(together.values, now.values)
    # What was noted at sampling is kept.
    torch.testing.assert_close(together.logprobs[8:, : fresh.mask.shape[1]], fresh.logprobs)
    moved = (together.logprobs - together.present_logprobs)[together.mask].abs()
    assert moved.max() > 0.01


def test_the_kl_penalty_of_past_rollouts_is_that_of_the_present_policy():
    learner = learner_of(OffPolicyGradient(replay=3), learning_rate=0.05, kl_coef=0.5)
    learner.update()
    learner.update()
    fresh = learner.collect()
    together = learner.with_replay(fresh)
    ratios = torch.where(together.mask, together.present_logprobs - together.ref_logprobs, 0.0)
    torch.testing.assert_close(together.penalties, 0.5 * ratios)
    # Rewards of the environment, less the penalty: the sum over an episode is its return.
    torch.testing.assert_close(together.rewards.sum(1), together.episode_returns)
    torch.testing.assert_close(
        (together.rewards + together.penalties).sum(1), together.scores, atol=1e-4, rtol=1e-4
    )
    kept = learner.replay[0]
    assert (kept.penalties - together.penalties[:8, : kept.mask.shape[1]]).abs().max() > 0.01


def test_a_rollout_of_the_past_without_masks_stands_beside_one_with_masks():
    """Steps of texts that are past `min_new_tokens`, and steps of texts that are not."""
    envs = letters_env(2, min_new_tokens=2, max_new_tokens=12)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    learner = Learner(
        policy, envs, SoftQLearning(replay=2), reference=policy.frozen_copy(), n_steps=2
    )
    masked = set()
    for _ in range(8):
        rollout = learner.collect()
        masked.add(rollout.action_masks is not None)
        learned, _ = learner.learn_from(rollout)
        assert learned.action_masks is None or len(learned.action_masks) == learned.num_tokens
    assert masked == {True, False}
