"""Rollouts traced by hand: a scripted policy, texts of a few letters."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import TransformReward
from letters import Letters
from toys import ScriptedPolicy, ToolEnv, letters_env, scripted_logprob, scripted_value

from agents import returns
from agents.collector import Collector
from policies import TransformerConfig, TransformerPolicy
from textenv.errors import RewardValueError, VocabularyMismatchError

torch.set_num_threads(1)
STOP, PAD = 4, 5  # after the letters 0 to 3
SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def make_collector(script, num_envs=2, **env_options):
    envs = letters_env(num_envs, **env_options)
    policy = ScriptedPolicy(5, envs.single_observation_space.shape[0], script)
    return Collector(policy, envs, seed=0)


def texts(rollout):
    return [row[row != PAD].tolist() for row in rollout.tokens]


def places(rollout):
    """Where the chosen tokens of each sequence are."""
    return [row.nonzero().flatten().tolist() for row in rollout.mask]


def assert_numbers_belong_to_their_tokens(rollout):
    """What the scripted policy said of a choice stands beside the token that was chosen."""
    for s, p in rollout.mask.nonzero().tolist():
        token = int(rollout.tokens[s, p])
        assert rollout.logprobs[s, p].item() == pytest.approx(scripted_logprob(p, token))
        assert rollout.values[s, p].item() == scripted_value(p)
    for name in ("logprobs", "values", "rewards"):
        assert (getattr(rollout, name)[~rollout.mask] == 0).all()


# --- the three autoreset modes --------------------------------------------------------------------

# Prompt [0], at most 3 new tokens. Row 0 stops with its second token, row 1 spends its budget.
ROW_0 = [0, 1, STOP]
ROW_1 = [0, 2, 3, 1]


def test_same_step():
    collector = make_collector([[1, 2], [STOP, 3], [2, 1], [3, 2]])
    rollout = collector.collect_steps(4)
    assert texts(rollout) == [ROW_0, ROW_1, [0, 2, 3], [0, 2]]
    assert places(rollout) == [[1, 2], [1, 2, 3], [1, 2], [1]]
    assert rollout.rewards.tolist() == [[0, 0, 20, 0], [0, 0, 0, 30], [0] * 4, [0] * 4]
    assert rollout.terminated.tolist() == [True, True, False, False]
    assert rollout.truncated.tolist() == [False] * 4
    assert rollout.scores.tolist() == [20, 30, 0, 0]
    assert rollout.bootstrap_values.tolist() == [0, 0, scripted_value(3), scripted_value(2)]
    assert rollout.prompt_lengths.tolist() == [1] * 4
    assert rollout.num_tokens == 8
    assert_numbers_belong_to_their_tokens(rollout)


def test_next_step():
    # Row 0 is over after step 1, so its choice in step 2 (a 3) only resets it; row 1's in step 3.
    collector = make_collector([[1, 2], [STOP, 3], [3, 1], [2, 3]], autoreset_mode=NEXT)
    rollout = collector.collect_steps(4)
    assert texts(rollout) == [ROW_0, ROW_1, [0, 2]]
    assert places(rollout) == [[1, 2], [1, 2, 3], [1]]
    assert rollout.rewards.tolist() == [[0, 0, 20, 0], [0, 0, 0, 30], [0] * 4]
    assert rollout.terminated.tolist() == [True, True, False]
    assert rollout.scores.tolist() == [20, 30, 0]
    assert rollout.bootstrap_values.tolist() == [0, 0, scripted_value(2)]
    assert rollout.num_tokens == 6
    assert_numbers_belong_to_their_tokens(rollout)


def test_next_step_goes_on_after_a_rollout_that_ends_between_end_and_reset():
    script = [[1, 2], [STOP, 3], [3, 1], [2, 3], [1, 2], [3, STOP]]
    collector = make_collector(script, autoreset_mode=NEXT)
    assert texts(collector.collect_steps(2)) == [ROW_0, [0, 2, 3]]
    # Row 0 only resets with 3, then chooses 2, 1, 3; row 1 chooses 1, resets with 3, then 2, STOP.
    rollout = collector.collect_steps(4)
    assert texts(rollout) == [ROW_1, [0, 2, 1, 3], [0, 2, STOP]]
    assert places(rollout) == [[3], [1, 2, 3], [1, 2]]
    assert rollout.rewards.sum(1).tolist() == [30, 30, 20]
    assert_numbers_belong_to_their_tokens(rollout)


def test_disabled():
    """The collector resets the rows that are over itself, so no step is lost."""
    script = [[1, 2], [STOP, 3], [2, 1], [3, 2]]
    rollout = make_collector(script, autoreset_mode=DISABLED).collect_steps(4)
    same = make_collector(script).collect_steps(4)
    for name in ("tokens", "mask", "rewards", "terminated", "scores", "bootstrap_values"):
        assert torch.equal(getattr(rollout, name), getattr(same, name)), name


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
def test_gymnasiums_own_vector_environment(mode):
    """The same tables from a SyncVectorEnv of single environments."""
    single = {
        "prompts": ["a"],
        "reward": lambda episodes: [10.0 * len(e.tokens) for e in episodes],
        "tokenizer": Letters(4, stop=True),
        "max_new_tokens": 3,
        "min_new_tokens": 2,
    }
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.make("textenv/Generate-v0", **single)] * 2, autoreset_mode=mode
    )
    script = [[1, 2], [STOP, 3], [2, 1], [3, 2], [3, 2]]
    expected = make_collector(script, autoreset_mode=mode, min_new_tokens=2).collect_steps(5)
    rollout = Collector(ScriptedPolicy(5, 4, script), envs, seed=0).collect_steps(5)
    for name in (
        *("tokens", "mask", "logprobs", "rewards", "terminated", "truncated", "scores"),
        *("bootstrap_values", "action_masks"),
    ):
        assert torch.equal(getattr(rollout, name), getattr(expected, name)), name
    envs.close()


def test_a_rollout_in_which_every_row_only_resets_takes_another_step():
    script = [[STOP, STOP], [3, 3], [1, 2]]
    collector = make_collector(script, autoreset_mode=NEXT)
    assert texts(collector.collect_steps(1)) == [[0, STOP]] * 2
    assert texts(collector.collect_steps(1)) == [[0, 1], [0, 2]]


# --- episodes that are cut ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
def test_a_cut_episode_goes_on_in_the_next_rollout(mode):
    collector = make_collector([[1], [2], [3], [0]], num_envs=1, autoreset_mode=mode)
    first, second = collector.collect_steps(2), collector.collect_steps(1)
    assert texts(first) == [[0, 1, 2]] and places(first) == [[1, 2]]
    assert first.bootstrap_values.tolist() == [scripted_value(3)]
    assert not first.finished.any()
    assert texts(second) == [[0, 1, 2, 3]] and places(second) == [[3]]
    assert second.terminated.tolist() == [True]
    assert second.prompt_lengths.tolist() == [1]
    for rollout in (first, second):
        assert_numbers_belong_to_their_tokens(rollout)


def test_scores_are_of_whole_episodes():
    from textenv.rewards import dense

    pay = dense(lambda batch: batch.actions + 1.0)
    collector = make_collector([[1], [2], [3], [0]], num_envs=1, reward=pay)
    first, second = collector.collect_steps(2), collector.collect_steps(2)
    assert first.rewards.tolist() == [[0, 2, 3, 0]] and first.scores.tolist() == [5]
    assert second.rewards.tolist() == [[0, 0, 0, 4], [0, 1, 0, 0]]
    assert second.scores.tolist() == [9, 1]  # 2 + 3 + 4, and a new episode


# --- what comes after the last token --------------------------------------------------------------


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
def test_a_truncated_episode_bootstraps_from_its_final_text(mode):
    """A short row that is cut by its budget beside a long finished one."""
    collector = make_collector(
        [[1, 2], [2, STOP], [3, 1]],
        prompts=[{"tokens": [0]}],
        budget="truncate",
        autoreset_mode=mode,
        max_prompt_tokens=3,  # observations are wider than any text
    )
    rollout = collector.collect_steps(3)
    assert texts(rollout)[:2] == [[0, 2, STOP], [0, 1, 2, 3]]
    assert rollout.terminated.tolist()[:2] == [True, False]
    assert rollout.truncated.tolist()[:2] == [False, True]
    assert rollout.bootstrap_values.tolist()[:2] == [0, scripted_value(4)]
    assert rollout.scores.tolist()[:2] == [20, 30]


class BothFlags(gym.vector.VectorWrapper):
    def step(self, actions):
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        return observations, rewards, terminated, truncated | terminated, infos


def test_both_flags_count_as_terminated():
    envs = BothFlags(letters_env(1))
    collector = Collector(ScriptedPolicy(5, 4, [[1], [STOP]]), envs, seed=0)
    rollout = collector.collect_steps(2)
    assert rollout.terminated.tolist() == [True]
    assert rollout.bootstrap_values.tolist() == [0]


# --- whole episodes, groups -----------------------------------------------------------------------


def test_whole_episodes():
    script = [[1, 2], [STOP, 3], [2, 1], [STOP, STOP], [3, 3], [STOP, 1]]
    collector = make_collector(script)
    rollout = collector.collect_episodes(2)
    assert texts(rollout) == [ROW_0, ROW_1]
    assert rollout.terminated.all()
    # The two that were running or left over come with the next rollout, in the order they ended.
    rollout = collector.collect_episodes(3)
    assert texts(rollout) == [[0, 2, STOP], [0, STOP], [0, 3, STOP]]
    assert places(rollout) == [[1, 2], [1], [1, 2]]
    assert_numbers_belong_to_their_tokens(rollout)


def test_groups_are_not_split():
    # Rows 0, 1 answer one prompt, rows 2, 3 another. The first row of each group is faster.
    script = [
        [STOP, 1, 2, 3],
        [STOP, 2, STOP, 1],
        [STOP, 3, 1, STOP],
        [1, STOP, 2, 2],
    ]
    prompts = [letter * n for letter in "abcd" for n in (1, 2, 3)]
    collector = make_collector(script, num_envs=4, prompts=prompts, group_size=2)
    rollout = collector.collect_episodes(4)
    assert rollout.finished.all()
    starts = [
        row[: n.item()].tolist()
        for row, n in zip(rollout.tokens, rollout.prompt_lengths, strict=True)
    ]
    assert starts[0] == starts[1] and starts[2] == starts[3]
    groups = rollout.groups.tolist()
    assert groups[0] == groups[1] != groups[2] == groups[3]
    answers = [
        row[n:][row[n:] != PAD].tolist()
        for row, n in zip(rollout.tokens, rollout.prompt_lengths, strict=True)
    ]
    assert sorted(answers[:2]) == [[1, 2, 3], [STOP]]
    assert sorted(answers[2:]) == [[2, STOP], [3, 1, STOP]]
    # Rows 0 and 1: the second prompt of row 0 was answered early and waited for row 1.
    later = collector.collect_episodes(2)
    assert later.groups.unique().numel() == 1
    assert later.groups[0].item() not in groups


def test_a_number_of_episodes_that_would_split_groups():
    collector = make_collector([], num_envs=4, group_size=2)
    with pytest.raises(ValueError, match=r"n_episodes is 3; .* group_size, which is 2"):
        collector.collect_episodes(3)


def test_groups_of_whole_episodes_stay_known_beside_cut_ones():
    collector = make_collector([[STOP, STOP], [1, 2]], group_size=2)
    rollout = collector.collect_steps(2)
    first, second, *cut = rollout.groups.tolist()
    assert first == second
    assert len({first, *cut}) == 3  # those that go on are each on their own


def test_without_groups_every_sequence_is_its_own():
    rollout = make_collector([[1, 2], [STOP, 3], [2, 1]]).collect_steps(3)
    assert rollout.groups.unique().numel() == len(rollout)


# --- action masks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
def test_the_masks_that_applied_come_with_the_tokens(mode):
    script = [[1, 2], [3, 1], [STOP, 1], [1, 1], [1, STOP], [1, 1]]
    collector = make_collector(script, min_new_tokens=2, autoreset_mode=mode)
    rollout = collector.collect_steps(6)
    counted = iter(rollout.action_masks.tolist())
    for s, p in rollout.mask.nonzero().tolist():
        may_stop = p >= 3  # after the prompt and two tokens
        assert next(counted) == [True] * 4 + [may_stop], (s, p)
    for seen in collector.policy.masks_seen:
        assert seen.shape == (2, 5)


def test_masks_are_selected_with_their_sequences():
    rollout = make_collector([[1, 2], [3, 1], [STOP, 1]], min_new_tokens=2).collect_steps(3)
    for order in ([1, 0], [1], [0]):
        part = rollout.select(torch.tensor(order))
        expected = [[True] * 4 + [p >= 3] for s, p in part.mask.nonzero().tolist()]
        assert part.action_masks.tolist() == expected


class MasksNowAndThen(gym.vector.VectorWrapper):
    """Tells row 1 alone, and only at the first step, that token 3 is ruled out."""

    def step(self, actions):
        *rest, infos = self.env.step(actions)
        if actions[0] == 0:
            infos["action_mask"] = np.zeros((2, 5), dtype=bool)
            infos["action_mask"][1, :3] = True
            infos["_action_mask"] = np.array([False, True])
        return *rest, infos


def test_a_row_that_is_told_nothing_may_choose_anything():
    envs = MasksNowAndThen(letters_env(2))
    collector = Collector(ScriptedPolicy(5, 4, [[0, 1], [1, 2], [2, 2]]), envs, seed=0)
    rollout = collector.collect_steps(3)
    restricted = [
        (texts(rollout)[s][p], p)
        for (s, p), allowed in zip(
            rollout.mask.nonzero().tolist(), rollout.action_masks, strict=True
        )
        if not allowed.all()
    ]
    assert restricted == [(2, 2)]  # the second choice of row 1


class EverOtherMasks(gym.vector.VectorWrapper):
    count = 0

    def step(self, actions):
        *rest, infos = self.env.step(actions)
        self.count += 1
        return *rest, infos | {"action_mask": np.arange(5) != [[self.count % 5]] * 2}


def test_the_table_of_masks_does_not_grow_from_rollout_to_rollout():
    policy = ScriptedPolicy(5, 4, [[1, 2]] * 20)
    collector = Collector(policy, EverOtherMasks(letters_env(2)), seed=0)
    assert collector.collect_steps(1).action_masks is None  # reset told of no mask
    assert {len(collector.collect_steps(2).mask_table) for _ in range(6)} == {1 + 2}


# --- other environments ---------------------------------------------------------------------------


def test_tokens_between_the_choices_are_read_but_not_learned_from():
    collector = Collector(ScriptedPolicy(4, 12, [[1], [2], [0], [1]]), ToolEnv())
    rollout = collector.collect_steps(4)
    assert rollout.tokens[0].tolist() == [3, 1, 3, 2, 3, 3, 0, 4, 4, 4, 4, 4]
    assert places(rollout)[0] == [1, 3, 6]
    assert rollout.rewards[0].tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0]
    assert rollout.values[0, [1, 3, 6]].tolist() == [11, 13, 16]
    # Discount and lambda act once per choice: deltas 1 + 0.9 * 13 - 11, 1 + 0.9 * 16 - 13, 1 - 16.
    advantages = returns.gae(
        rollout.rewards, rollout.values, rollout.mask, rollout.bootstrap_values, 0.9, 0.5
    )
    last, middle = -15.0, 2.4 + 0.45 * -15.0
    expected = [1.7 + 0.45 * middle, middle, last]
    assert advantages[0, [1, 3, 6]].tolist() == pytest.approx(expected, rel=1e-5)
    # The new episode is cut behind the tool's token.
    assert rollout.tokens[1].tolist() == [3, 1, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4]
    assert rollout.bootstrap_values.tolist() == [0, 13]


class Sliding(gym.vector.VectorWrapper):
    """Drops the first token of every text, as an environment with a window would."""

    def step(self, actions):
        observations, *rest = self.env.step(actions)
        moved = np.full_like(observations, PAD)
        moved[:, :-1] = observations[:, 1:]
        return moved, *rest


def test_observations_that_do_not_grow_by_the_chosen_token_are_refused():
    collector = Collector(ScriptedPolicy(5, 4, [[1, 1], [2, 3]]), Sliding(letters_env(2)))
    with pytest.raises(ValueError, match=r"row 0: .* does not hold the chosen tokens at positions"):
        collector.collect_steps(2)


def test_a_wrapper_that_pays_beyond_float32_is_named_by_its_row():
    scaled = TransformReward(letters_env(2), lambda rewards: 1e37 * rewards)
    collector = Collector(ScriptedPolicy(5, 4, [[1, STOP]]), scaled)
    with pytest.raises(RewardValueError, match=r"paid 1e\+38 to row 1"):
        collector.collect_steps(1)


def test_rewards_and_scores_keep_their_digits():
    def reward(episodes):
        return [1e8 + len(e.tokens) for e in episodes]

    collector = make_collector([[1, 2], [STOP, 3], [2, 1], [3, 2]], reward=reward)
    rollout = collector.collect_steps(4)
    assert rollout.rewards.max(1).values.tolist() == [1e8 + 2, 1e8 + 3, 0, 0]
    assert rollout.scores.tolist() == [1e8 + 2, 1e8 + 3, 0, 0]


def test_float_observations_make_the_same_rollout():
    class Floats(gym.vector.VectorWrapper):
        def reset(self, **kwargs):
            observations, infos = self.env.reset(**kwargs)
            return observations.astype(np.float32), infos

        def step(self, actions):
            observations, *rest = self.env.step(actions)
            return observations.astype(np.float32), *rest

    script = [[1, 2], [2, 3], [2, 1], [3, 2]]
    expected = make_collector(script).collect_steps(4)
    rollout = Collector(ScriptedPolicy(5, 4, script), Floats(letters_env(2)), seed=0).collect_steps(
        4
    )
    assert rollout.tokens.dtype == torch.int64
    assert torch.equal(rollout.tokens, expected.tokens)
    assert torch.equal(rollout.logprobs, expected.logprobs)


# --- policies that do not fit ---------------------------------------------------------------------


def test_a_policy_of_another_vocabulary():
    with pytest.raises(VocabularyMismatchError, match=r"has 6 tokens .* the environment has 5"):
        Collector(ScriptedPolicy(6, 4, []), letters_env(1))
    config = TransformerConfig(5, 4, n_layer=1, n_head=1, n_embd=4)
    other = TransformerPolicy(config, tokenizer=Letters(5))  # as many tokens, but no stop token
    with pytest.raises(VocabularyMismatchError, match=r"TransformerPolicy\.for_env\(envs\)"):
        Collector(other, letters_env(1))


def test_a_policy_with_too_short_a_context():
    with pytest.raises(ValueError, match=r"shape \(4,\) do not fit the policy's context of 3"):
        Collector(ScriptedPolicy(5, 3, []), letters_env(1))
