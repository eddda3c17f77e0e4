import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import returns

NAN = float("nan")
unhurried = settings(deadline=None)  # a first call of torch takes a second
torch.set_num_threads(1)


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def fill(x, mask, value):
    """`x` with `value` where nothing was chosen."""
    return torch.where(mask, x, value)


def random_rollout(seed, sequences=5, length=12):
    """Rewards, values, mask with gaps and bootstrap values; NaN outside the mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(sequences, length, generator=generator) < 0.6
    rewards = torch.randn(sequences, length, generator=generator, dtype=torch.float64)
    values = torch.randn(sequences, length, generator=generator, dtype=torch.float64)
    bootstrap = torch.randn(sequences, generator=generator, dtype=torch.float64)
    return fill(rewards, mask, NAN), fill(values, mask, NAN), mask, bootstrap


# --- discounted returns ---------------------------------------------------------------------------


def test_discounted_returns_by_hand():
    # Row 0: prompt, two chosen tokens, a tool's token, a third chosen one; terminated.
    # Row 1: one chosen token, cut off before a value of 10.
    mask = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0]]).bool()
    rewards = rows([NAN, 1.0, 2.0, NAN, 4.0, NAN], [3.0, NAN, NAN, NAN, NAN, NAN])
    result = returns.discounted_returns(rewards, mask, rows(0.0, 10.0).view(2), gamma=0.5)
    # 4; 2 + 0.5 * 4 = 4 (the tool's token costs no discount); 1 + 0.5 * 4 = 3. And 3 + 0.5 * 10.
    expected = rows([0.0, 3.0, 4.0, 0.0, 4.0, 0.0], [8.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert torch.equal(result, expected)


def test_bootstrap_of_an_empty_sequence_reaches_nothing():
    result = returns.discounted_returns(
        torch.full((1, 3), NAN), torch.zeros(1, 3).bool(), torch.tensor([NAN]), 0.9
    )
    assert torch.equal(result, torch.zeros(1, 3))


def test_integer_rewards_are_not_truncated():
    result = returns.discounted_returns(
        torch.tensor([[0, 1]]), torch.ones(1, 2).bool(), torch.zeros(1), gamma=0.5
    )
    assert result.tolist() == [[0.5, 1.0]]


# --- generalised advantage estimation -------------------------------------------------------------


def test_gae_by_hand():
    mask = torch.tensor([[0, 1, 0, 1, 1]]).bool()
    rewards = rows([NAN, 1.0, NAN, 0.0, 2.0])
    values = rows([NAN, 0.5, NAN, 1.0, 4.0])
    result = returns.gae(rewards, values, mask, rows(8.0).view(1), gamma=0.5, lam=0.5)
    # delta_3 = 2 + 0.5 * 8 - 4 = 2           A_3 = 2
    # delta_2 = 0 + 0.5 * 4 - 1 = 1           A_2 = 1 + 0.25 * 2 = 1.5
    # delta_1 = 1 + 0.5 * 1 - 0.5 = 1         A_1 = 1 + 0.25 * 1.5 = 1.375
    assert torch.equal(result, rows([0.0, 1.375, 0.0, 1.5, 2.0]))


@pytest.mark.parametrize(
    ("bootstrap", "expected"),
    [(6.0, [0.5, 4.0]), (0.0, [-1.0, 1.0])],
    ids=["truncated: V(s_T)", "terminated: 0"],
)
def test_gae_bootstraps_truncation_only(bootstrap, expected):
    # delta_2 = 3 + 0.5 V - 2 = 4 or 1; A_1 = (0 + 0.5 * 2 - 2.5) + 0.5 * A_2 = -1.5 + 2 or + 0.5
    mask = torch.ones(1, 2).bool()
    result = returns.gae(
        rows([0.0, 3.0]), rows([2.5, 2.0]), mask, torch.tensor([bootstrap]).double(), 0.5, 1.0
    )
    assert result.tolist() == [expected]


def test_a_short_row_beside_a_long_one_bootstraps_at_its_own_end():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    rewards, values = torch.ones(2, 4), torch.zeros(2, 4)
    result = returns.gae(rewards, values, mask, torch.tensor([0.0, 5.0]), 1.0, 1.0)
    assert result.tolist() == [[4.0, 3.0, 2.0, 1.0], [7.0, 6.0, 0.0, 0.0]]


@unhurried
@given(seed=st.integers(0, 10**6), gamma=st.floats(0, 1))
def test_gae_with_lambda_one_is_return_minus_value(seed, gamma):
    rewards, values, mask, bootstrap = random_rollout(seed)
    advantages = returns.gae(rewards, values, mask, bootstrap, gamma, 1.0)
    expected = returns.discounted_returns(rewards, mask, bootstrap, gamma) - values
    torch.testing.assert_close(advantages, fill(expected, mask, 0.0))


@unhurried
@given(seed=st.integers(0, 10**6), gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_gae_acts_once_per_chosen_token(seed, gamma, lam):
    """Cutting out what was not chosen changes nothing."""
    rewards, values, mask, bootstrap = random_rollout(seed, sequences=1)
    advantages = returns.gae(rewards, values, mask, bootstrap, gamma, lam)
    dense_mask = mask[mask][None]
    dense = returns.gae(rewards[mask][None], values[mask][None], dense_mask, bootstrap, gamma, lam)
    torch.testing.assert_close(advantages[mask][None], dense)


def episodes_of(dones):
    """(env, first, end, done) of each episode in an SB3 rollout with `dones` (steps, envs)."""
    for env in range(dones.shape[1]):
        first = 0
        for step in range(len(dones)):
            if dones[step, env] or step == len(dones) - 1:
                yield env, first, step + 1, dones[step, env]
                first = step + 1


@pytest.mark.parametrize("seed", range(5))
def test_gae_equals_stable_baselines3(seed):
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    from gymnasium.spaces import Box, Discrete

    rng = np.random.default_rng(seed)
    steps, envs, gamma, lam = 40, 3, 0.97, 0.9
    rewards, values = rng.normal(size=(2, steps, envs)).astype(np.float32)
    dones = rng.random((steps, envs)) < 0.15
    last_values = rng.normal(size=envs).astype(np.float32)

    buffer = buffers.RolloutBuffer(
        steps, Box(0, 1, (1,)), Discrete(2), "cpu", lam, gamma, n_envs=envs
    )
    buffer.rewards, buffer.values = rewards, values
    buffer.episode_starts[1:] = dones[:-1]
    buffer.compute_returns_and_advantage(torch.tensor(last_values), dones[-1])

    # The same data as one sequence an episode, with tokens between the chosen ones.
    episodes = list(episodes_of(dones))
    shape = len(episodes), 2 * steps
    mask = torch.zeros(shape).bool()
    our_rewards, our_values = torch.full(shape, NAN), torch.full(shape, NAN)
    bootstrap = torch.zeros(len(episodes))
    for s, (env, first, end, done) in enumerate(episodes):
        places = np.sort(rng.choice(2 * steps, end - first, replace=False))
        mask[s, places] = True
        our_rewards[s, places] = torch.tensor(rewards[first:end, env])
        our_values[s, places] = torch.tensor(values[first:end, env])
        bootstrap[s] = 0.0 if done else float(last_values[env])
    advantages = returns.gae(our_rewards, our_values, mask, bootstrap, gamma, lam)

    assert dones.any()
    for s, (env, first, end, _) in enumerate(episodes):
        expected = torch.tensor(buffer.advantages[first:end, env])
        torch.testing.assert_close(advantages[s][mask[s]], expected, rtol=1e-4, atol=1e-5)
    assert not advantages[~mask].any()


def test_targets_carry_no_gradient():
    values = torch.ones(1, 2, requires_grad=True)
    mask = torch.ones(1, 2).bool()
    assert not returns.gae(values, values, mask, torch.zeros(1), 1.0, 1.0).requires_grad
    assert not returns.discounted_returns(values, mask, torch.zeros(1), 1.0).requires_grad


# --- standardise and rescale ----------------------------------------------------------------------


def test_standardise_by_hand():
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]]).bool()
    x = rows([1.0, 1.0, NAN], [5.0, 5.0, NAN])  # mean 3, standard deviation 2
    expected = rows([-1.0, -1.0, 0.0], [1.0, 1.0, 0.0])
    torch.testing.assert_close(returns.standardise(x, mask), expected)
    # Dividing alone keeps everything positive.
    torch.testing.assert_close(returns.rescale(x, mask), rows([0.5, 0.5, 0.0], [2.5, 2.5, 0.0]))


@unhurried
@given(seed=st.integers(0, 10**6), shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_standardise_gives_mean_0_and_standard_deviation_1(seed, shift, scale):
    noise, _, mask, _ = random_rollout(seed)
    x = shift + scale * noise
    result = returns.standardise(x, mask)[mask].numpy()
    assert abs(result.mean()) < 1e-9
    assert abs(result.std() - 1) < 1e-5
    rescaled = returns.rescale(x, mask)[mask].numpy()
    np.testing.assert_allclose(rescaled * x[mask].numpy().std(), x[mask], rtol=1e-9)


@pytest.mark.parametrize(
    ("chosen", "standardised", "rescaled"),
    [
        ([], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([1], [0.0, 0.0, 0.0], [0.0, 7.0, 0.0]),
        ([1, 2], [0.0, -1.0, 1.0], [0.0, 7.0, 9.0]),  # 7 and 9: mean 8, standard deviation 1
    ],
)
def test_none_one_and_two_values(chosen, standardised, rescaled):
    mask = torch.zeros(1, 3).bool()
    mask[0, chosen] = True
    x = fill(torch.tensor([[5.0, 7.0, 9.0]]), mask, NAN)
    torch.testing.assert_close(returns.standardise(x, mask), torch.tensor([standardised]))
    torch.testing.assert_close(returns.rescale(x, mask), torch.tensor([rescaled]))


@pytest.mark.parametrize("size", [2, 3, 7, 1000])
def test_equal_values_are_not_blown_up(size):
    """0.1 has no exact mean in float32: a rounding error must not become an advantage."""
    x, mask = torch.full((size,), 0.1), torch.ones(size).bool()
    assert not returns.standardise(x, mask).any()
    assert torch.equal(returns.rescale(x, mask), x)
    assert not returns.group_standardised(x, torch.zeros(size).long(), eps=1e-8).any()


# --- large numbers --------------------------------------------------------------------------------

SMALL = torch.tensor([0.0, 1.0, 3.0, 2.0, 2.0, 7.0], dtype=torch.float64)
SIX = torch.tensor([0, 0, 1, 1, 1, 0])
DIFFERENCES = {
    "group_centred": lambda x: returns.group_centred(x, SIX),
    "group_standardised": lambda x: returns.group_standardised(x, SIX),
    "leave_one_out": lambda x: returns.leave_one_out(x, SIX),
    "group_standardised_less": lambda x: returns.group_standardised_less(x, SMALL.sqrt(), SIX),
    "standardised_less": lambda x: returns.standardised_less(x, SMALL.sqrt(), torch.ones(6).bool()),
    "is_group_best": lambda x: returns.is_group_best(x, SIX),
    "standardise": lambda x: returns.standardise(x, torch.ones(6).bool()),
    "spread": lambda x: x / returns.rescale(x, torch.ones(6).bool()),
    "discounted_returns": lambda x: returns.standardise(
        returns.discounted_returns(x[:, None], torch.ones(6, 1).bool(), torch.zeros(6), 1.0),
        torch.ones(6, 1).bool(),
    ),
    "gae": lambda x: returns.standardise(
        returns.gae(
            x[:, None], torch.zeros(6, 1), torch.ones(6, 1).bool(), torch.zeros(6), 1.0, 1.0
        ),
        torch.ones(6, 1).bool(),
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_common_part_of_all_returns_changes_no_difference(name):
    """Rewards in float64, all other arrays in float32, as in a rollout."""
    function = DIFFERENCES[name]
    expected = function(SMALL + 1)
    assert expected.any()
    torch.testing.assert_close(function(SMALL + 1e8), expected, atol=1e-7, rtol=1e-7)


# For scores less penalties, differences as small as that are rounding errors in float32.
@pytest.mark.parametrize("name", [name for name in DIFFERENCES if not name.endswith("_less")])
def test_differences_that_float32_can_hold_are_not_lost_in_a_mean(name):
    """At 1e8 float32 holds every eighth number, and a mean between two of them is none."""
    function = DIFFERENCES[name]
    expected = function(8 * SMALL + 8)
    found = function((1e8 + 8 * SMALL + 8).float())
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-4, rtol=1e-4)


# --- groups ---------------------------------------------------------------------------------------

# Groups 7 (rows 0, 2, 3), -1 (rows 1, 5) and 4 (row 4 alone).
GROUPS = torch.tensor([7, -1, 7, 7, 4, -1])
REWARDS = torch.tensor([1.0, 10.0, 2.0, 6.0, 5.0, 20.0], dtype=torch.float64)


def test_group_baselines_by_hand():
    # Group 7: 1, 2, 6, mean 3. Group -1: 10, 20, mean 15.
    centred = returns.group_centred(REWARDS, GROUPS)
    assert centred.tolist() == [-2.0, -5.0, -1.0, 3.0, 0.0, 5.0]
    # 1 - (2 + 6) / 2 = -3; 2 - (1 + 6) / 2 = -1.5; 6 - (1 + 2) / 2 = 4.5; the single row has none.
    others = returns.leave_one_out(REWARDS, GROUPS)
    torch.testing.assert_close(
        others, torch.tensor([-3.0, -10.0, -1.5, 4.5, 0.0, 10.0]).double(), rtol=1e-6, atol=0
    )
    # Variances (4 + 1 + 9) / 3 and 25.
    std = (14 / 3) ** 0.5
    expected = torch.tensor([-2 / std, -1.0, -1 / std, 3 / std, 0.0, 1.0]).double()
    torch.testing.assert_close(
        returns.group_standardised(REWARDS, GROUPS, eps=0.5),
        expected * torch.tensor([std / (std + 0.5), 5 / 5.5]).double()[[0, 1, 0, 0, 1, 1]],
        rtol=1e-6,
        atol=0,
    )


def test_group_best():
    assert returns.is_group_best(REWARDS, GROUPS).tolist() == [0, 0, 0, 1, 1, 1]
    ties = torch.tensor([3.0, -2.0, 3.0, 3.0, 0.0, -2.0])
    best = returns.is_group_best(ties, GROUPS)
    assert best.tolist() == [1, 1, 0, 0, 1, 0]
    assert best.dtype == torch.float32


def test_groups_that_differ():
    """Groups in any order: 3, 3, 1 differ; 2, 2 and a group of one do not."""
    values = torch.tensor([3.0, 2.0, 3.0, 5.0, 2.0, 1.0])
    groups = torch.tensor([9, 4, 9, 7, 4, 9])
    differs = returns.differs_in_group(values, groups)
    assert differs.tolist() == [True, False, True, False, False, True]
    assert differs.dtype == torch.bool


grouped_returns = st.lists(
    st.tuples(st.floats(-1e3, 1e3), st.integers(-2, 3)), min_size=1, max_size=20
)


@unhurried
@given(grouped_returns)
def test_groups_against_a_loop(pairs):
    values = torch.tensor([r for r, _ in pairs], dtype=torch.float64)
    groups = torch.tensor([g for _, g in pairs])
    best = returns.is_group_best(values, groups)
    for g in groups.unique():
        member = groups == g
        own = values[member].numpy()
        for function in (returns.group_centred, returns.leave_one_out, returns.group_standardised):
            advantages = function(values, groups)[member]
            assert abs(advantages.sum()) < 1e-6 * len(own)
        np.testing.assert_allclose(
            returns.group_centred(values, groups)[member], own - own.mean(), atol=1e-9
        )
        np.testing.assert_allclose(
            returns.group_standardised(values, groups)[member],
            (own - own.mean()) / (own.std() + 1e-4),
            atol=1e-6,
        )
        if len(own) > 1:
            others = [np.delete(own, i).mean() for i in range(len(own))]
            advantages = returns.leave_one_out(values, groups)[member]
            np.testing.assert_allclose(advantages, own - others, atol=1e-9)
        assert best[member].tolist() == [float(i == own.argmax()) for i in range(len(own))]
        differs = returns.differs_in_group(values, groups)[member]
        assert differs.tolist() == [len(set(own.tolist())) > 1] * len(own)


def test_leave_one_out_baseline_ignores_its_own_answer():
    """Raising a return by d raises its own advantage by d."""
    higher = REWARDS.clone()
    higher[0] += 8.0
    change = returns.leave_one_out(higher, GROUPS) - returns.leave_one_out(REWARDS, GROUPS)
    torch.testing.assert_close(change, torch.tensor([8.0, 0.0, -4.0, -4.0, 0.0, 0.0]).double())


# --- shapes ---------------------------------------------------------------------------------------


def test_wrong_shapes_are_named():
    x, mask, bootstrap = torch.zeros(2, 3), torch.ones(2, 3).bool(), torch.zeros(2)
    with pytest.raises(ValueError, match=r"values has shape \(2, 4\), but mask has \(2, 3\)"):
        returns.gae(x, torch.zeros(2, 4), mask, bootstrap, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"bootstrap_values has shape \(3,\).*one value"):
        returns.discounted_returns(x, mask, torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match=r"bootstrap_values must be floats, got torch.int64"):
        returns.discounted_returns(x, mask, bootstrap.long(), 1.0)
    with pytest.raises(ValueError, match=r"\(sequences, tokens\), got shape \(3,\)"):
        returns.discounted_returns(x[0], mask[0], bootstrap, 1.0)
    with pytest.raises(ValueError, match=r"bool tensor, got torch.float32"):
        returns.standardise(x, mask.float())
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        returns.group_centred(bootstrap, torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"groups must be integers, got torch.float32"):
        returns.leave_one_out(bootstrap, bootstrap)


# --- returns in units of the spread of the scores -------------------------------------------------


@given(seed=st.integers(0, 10**6), size=st.integers(2, 12))
def test_without_a_penalty_returns_are_standardised(seed, size):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(size, generator=generator)
    groups = torch.randint(0, 3, (size,), generator=generator)
    torch.testing.assert_close(
        returns.group_standardised_less(scores, 0 * scores, groups),
        returns.group_standardised(scores, groups),
    )
    tokens = torch.randn(3, size, generator=generator)
    mask = torch.rand(3, size, generator=generator) < 0.7
    torch.testing.assert_close(
        returns.standardised_less(tokens, 0 * tokens, mask), returns.standardise(tokens, mask)
    )


def test_a_penalty_is_divided_by_the_spread_of_the_scores():
    scores = torch.tensor([0.0, 2.0, 5.0, 5.0])
    penalties = torch.tensor([0.3, 0.1, 0.3, 0.1])
    groups = torch.tensor([0, 0, 1, 1])
    found = returns.group_standardised_less(scores, penalties, groups, eps=1e-12)
    # The first group's scores have the deviation 1, the second's have none.
    torch.testing.assert_close(found, torch.tensor([-1.1, 1.1, -0.1, 0.1]))


def test_at_the_optimum_of_score_less_penalty_advantages_are_0():
    """r - beta log(p / q) is the same for all answers of pi*: the fixed point stays where it is."""
    scores = torch.tensor([0.0, 0.7, -1.3, 2.0], dtype=torch.float64)
    found = returns.group_standardised_less(scores, scores - 0.4, torch.zeros(4).long())
    assert found.abs().max() < 1e-12


def test_sizes_of_groups():
    assert returns.group_sizes(torch.tensor([7, 3, 7, 7])).tolist() == [3, 1, 3, 3]
