"""What is paid, and what each component of the reward is reported to have paid, by hand."""

from environments import number_of_a, single, vector
from gymnasium.vector import AutoresetMode

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
