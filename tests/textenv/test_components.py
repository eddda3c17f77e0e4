"""What is paid, and what each component of the reward is reported to have paid, by hand."""

import re

import pytest
from environments import number_of_a, single, vector
from gymnasium.vector import AutoresetMode

from textenv.errors import RewardValueError
from textenv.rewards import dense, per_text, weighted

# "a" costs nothing to dense, every other token its place in the answer.
place = dense(lambda b: (b.actions != 97) * (b.lengths - b.prompt_lengths), "place")
REWARD = weighted(a=(2.0, number_of_a), place=(-0.5, place), length=(0.0, per_text(len)))


def test_a_weighted_sum_over_an_episode():
    env = single(reward=REWARD, max_new_tokens=4)
    table = [  # action, reward, info
        ("b", -0.5, {}),
        ("a", 0.0, {}),
        ("b", -1.5, {}),
        ("a", 2 * 2.0, {"a": 2.0, "place": 4.0, "length": 4.0}),
    ]
    for _ in range(2):  # nothing is left over for the second episode
        env.reset()
        for action, expected, components in table:
            _, reward, _, _, info = env.step(ord(action))
            assert reward == expected
            assert info.get("reward_components", {}) == components


def test_the_last_step_pays_both_kinds():
    env = single(reward=REWARD, max_new_tokens=2)
    env.reset(seed=0)
    env.step(97)
    assert env.step(98)[1] == 2.0 * 1 - 0.5 * 2


def test_rows_that_end_at_different_times():
    """Row 1 stops and restarts while row 0 goes on; sums of running episodes are not told."""
    envs = vector(2, reward=REWARD, max_new_tokens=3, stop_tokens=[46])
    envs.reset(seed=0)
    infos = envs.step([98, 46])[4]["final_info"]
    parts = infos["reward_components"]
    assert parts["place"].tolist() == [0.0, 1.0] and parts["_place"].tolist() == [False, True]
    assert parts["a"].tolist() == parts["length"].tolist() == [0.0, 0.0]
    envs.step([98, 97])
    _, rewards, _, _, infos = envs.step([97, 46])
    parts = infos["final_info"]["reward_components"]
    assert parts["place"].tolist() == [1.0 + 2.0, 2.0]
    assert parts["a"].tolist() == [1.0, 1.0] and parts["length"].tolist() == [3.0, 1.0]
    assert rewards.tolist() == [2.0, 2.0 - 0.5 * 2]


def test_a_dense_reward_in_the_mode_that_resets_at_the_next_step():
    envs = vector(
        1, reward=place, max_new_tokens=2, autoreset_mode=AutoresetMode.NEXT_STEP, prompts=["p"]
    )
    envs.reset(seed=0)
    paid, told = [], []
    for _ in range(6):  # two steps and a reset, twice
        _, rewards, *_, infos = envs.step([98])
        paid.append(float(rewards[0]))
        told.append(infos.get("reward_components", {}).get("place", [None])[0])
    assert paid == [1.0, 2.0, 0.0, 1.0, 2.0, 0.0]
    assert told == [None, 3.0, None, None, 3.0, None]


# ---------------------------------------------------------------- what is too large to learn from


def paid_once(reward):
    envs = vector(1, reward=reward, max_new_tokens=1, prompts=["p"])
    envs.reset(seed=0)
    return float(envs.step([98])[1][0])


@pytest.mark.parametrize("size", [1e39, -1e39, 1e30, 1.1e15, 10**30])
@pytest.mark.parametrize("kind", [per_text, dense])
def test_a_reward_beyond_float32_or_whose_square_is_names_itself_and_the_episode(size, kind):
    """Squares of it are taken, and summed, wherever values or deviations are."""
    reward = kind(lambda scored: size if kind is per_text else [size] * len(scored), "huge")
    message = r"'huge' returned -?1\S* for episode 0 of 1 .*prompt 'p', answer 'b'.*within 1e\+15"
    with pytest.raises(RewardValueError, match=message):
        paid_once(reward)


def test_it_is_the_weighted_reward_that_counts():
    huge = per_text(lambda text: 1e20, "huge")
    assert paid_once(weighted(small=(1e-20, huge))) == 1.0
    assert paid_once(weighted(reported=(0.0, huge), one=(1.0, per_text(len)))) == 1.0
    for weight, value in ((1e20, 1.0), (1e300, 1e300), (-1e20, 5.0)):
        raised_by = weighted(loud=(weight, per_text(lambda text, v=value: v)))
        told = re.escape(f"times its weight of {weight:g},")
        with pytest.raises(RewardValueError, match=f"'loud' .*, {told}"):
            paid_once(raised_by)
        with pytest.raises(RewardValueError, match="'loud'"):
            paid_once(weighted(loud=(weight, dense(lambda b, v=value: [v] * len(b)))))


def test_large_rewards_that_can_be_learned_from_are_paid():
    assert paid_once(per_text(lambda text: -9e14)) == -9e14
