"""Credit at any grain, by hand on conversations of two turns."""

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import DAPO, GRPO, PPO, RLOO, DrGRPO, PPOPenalty, Rollout, Trainer, losses, returns
from agents.algorithms.names import ALGORITHMS
from policies import PolicyOutputs, TransformerConfig, TransformerPolicy
from textenv.errors import ObjectNotFoundError, OptionError, UnmetNeedError

torch.set_num_threads(1)
NAN = float("nan")
unhurried = settings(deadline=None)

# One conversation: two tokens of the prompt, a turn of two tokens, a reply of two, a turn of three.
TURNS = torch.tensor([[-1, -1, 1, 1, -1, -1, 2, 2, 2, -1]])
MASK = TURNS > 0
REWARDS = torch.tensor([[NAN, NAN, 1.0, 2.0, NAN, NAN, 0.0, 4.0, 8.0, NAN]]).double()
VALUES = torch.tensor([[NAN, NAN, 6.0, 5.0, NAN, NAN, 10.0, 3.0, 7.0, NAN]]).double()
NOTHING = torch.zeros(1).double()


def at_tokens(first, second):
    """Advantages of the two turns at their tokens."""
    row = torch.zeros(1, 10).double()
    row[0, 2:4], row[0, 6:9] = torch.as_tensor(first), torch.as_tensor(second)
    return row


def gae_by_turn(gamma, lam, bootstrap=0.0, mid_turn=False, turns=TURNS):
    return returns.gae_by_turn(
        REWARDS,
        VALUES,
        MASK,
        torch.tensor([bootstrap]).double(),
        gamma,
        lam,
        turns,
        torch.tensor([mid_turn]),
    )


# --- with values ----------------------------------------------------------------------------------


def test_gae_by_turn_by_hand():
    # Turn 2: 0 + 4 + 8 - 10 = 2. Turn 1: 1 + 2 + 0.5 * 10 - 6 = 2, and 0.5 * 0.25 of turn 2's.
    assert torch.equal(gae_by_turn(0.5, 0.25), at_tokens(2 + 0.5 * 0.25 * 2, 2.0))


def test_gae_by_token_by_hand():
    """The world's two tokens cost no discount: the token before them looks at the one behind."""
    # Backwards: 8 - 7 = 1; 4 + 3.5 - 3 = 4.5; 0 + 1.5 - 10 = -8.5; 2 + 5 - 5 = 2; 1 + 2.5 - 6.
    deltas = [-2.5, 2.0, -8.5, 4.5, 1.0]
    running, advantages = 0.0, []
    for delta in reversed(deltas):
        running = delta + 0.5 * 0.25 * running
        advantages.insert(0, running)
    found = returns.gae(REWARDS, VALUES, MASK, NOTHING, 0.5, 0.25)
    assert found[MASK].tolist() == pytest.approx(advantages)


def test_gae_by_answer_by_hand():
    """1 + 2 + 0 + 4 + 8 - 6, whatever gamma and lambda."""
    for gamma, lam in ((1.0, 1.0), (0.5, 0.25)):
        found = returns.gae_by_answer(REWARDS, VALUES, MASK, NOTHING, gamma, lam)
        assert torch.equal(found, at_tokens(9.0, 9.0))


def test_a_bootstrap_value_is_discounted_once_where_the_last_turn_is_over():
    # Turn 2: 12 + 0.5 * 20 - 10 = 12; turn 1: 3 + 5 - 6 + 0.125 * 12.
    assert torch.equal(gae_by_turn(0.5, 0.25, 20.0), at_tokens(3.5, 12.0))
    # In the middle of the turn no turn has passed: 12 + 20 - 10 = 22.
    assert torch.equal(gae_by_turn(0.5, 0.25, 20.0, mid_turn=True), at_tokens(4.75, 22.0))
    found = returns.gae_by_answer(REWARDS, VALUES, MASK, NOTHING + 20)
    assert torch.equal(found, at_tokens(29.0, 29.0))


def test_a_turn_whose_beginning_an_earlier_rollout_holds_begins_with_what_is_chosen_here():
    turns = TURNS + (TURNS > 0)  # turns 2 and 3
    assert torch.equal(gae_by_turn(0.5, 0.25, turns=turns), gae_by_turn(0.5, 0.25))
    assert returns.turn_begins(turns).nonzero().tolist() == [[0, 2], [0, 6]]


def random_conversations(seed, sequences=6, length=14):
    """Rewards, values, mask, bootstrap values and turns of random lengths, NaN outside the mask."""
    generator = torch.Generator().manual_seed(seed)

    def random():
        return torch.randn(sequences, length, generator=generator).double()

    mask = torch.rand(sequences, length, generator=generator) < 0.6
    # A new turn begins somewhere: always behind the world's tokens, and elsewhere at random.
    new = torch.rand(sequences, length, generator=generator) < 0.3
    turns = torch.where(mask, 1 + new.cumsum(1), -1)
    rewards, values = (torch.where(mask, random(), NAN) for _ in range(2))
    return rewards, values, mask, random()[:, 0], turns


@unhurried
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_gae_by_turn_is_gae_of_the_turns(seed, gamma, lam):
    """Written out once more, turn by turn."""
    rewards, values, mask, bootstrap, turns = random_conversations(seed)
    found = returns.gae_by_turn(rewards, values, mask, bootstrap, gamma, lam, turns)
    assert (found[~mask] == 0).all()
    for s in range(len(mask)):
        following, advantage = bootstrap[s], 0.0
        for turn in sorted({*turns[s, mask[s]].tolist()}, reverse=True):
            places = (turns[s] == turn).nonzero().flatten()
            value = values[s, places[0]]
            delta = rewards[s, places].sum() + gamma * following - value
            advantage = delta + gamma * lam * advantage
            following = value
            torch.testing.assert_close(found[s, places], advantage.expand(len(places)))


@unhurried
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_the_ends_of_the_range(seed, gamma, lam):
    rewards, values, mask, bootstrap, _ = random_conversations(seed)
    arrays = (rewards, values, mask, bootstrap, gamma, lam)
    each = torch.where(mask, mask.cumsum(1), -1)  # every token is a turn
    by_token = returns.gae(*arrays)
    torch.testing.assert_close(returns.gae_by_turn(*arrays, each), by_token)
    one = torch.where(mask, 1, -1)
    middle = torch.ones(len(mask)).bool()  # so that nothing is discounted
    by_answer = returns.gae_by_answer(*arrays)
    torch.testing.assert_close(returns.gae_by_turn(*arrays, one, middle), by_answer)


@unhurried
@given(st.integers(0, 10**6))
def test_without_discounts_it_is_what_follows_less_the_value(seed):
    rewards, values, mask, bootstrap, turns = random_conversations(seed)
    found = returns.gae_by_turn(rewards, values, mask, bootstrap * 0, 1.0, 1.0, turns)
    begins = returns.turn_begins(turns)
    following = returns.turn_returns(rewards, turns)
    torch.testing.assert_close(found[begins], (following - values)[begins])
    # At the beginning of a turn what follows is the same by token.
    by_token = returns.discounted_returns(rewards, mask, bootstrap * 0, 1.0)
    torch.testing.assert_close(following[begins], by_token[begins])


def test_shapes_and_turns_are_checked():
    with pytest.raises(UnmetNeedError, match=r"turn of each chosen token.*rollouts of a Collector"):
        returns.gae_by_turn(REWARDS, VALUES, MASK, NOTHING, 1.0, 1.0, None)
    with pytest.raises(ValueError, match="turns must be -1 where mask is False"):
        gae_by_turn(1.0, 1.0, turns=torch.ones_like(TURNS))
    with pytest.raises(ValueError, match=r"turns has shape \(1, 9\), but mask has \(1, 10\)"):
        gae_by_turn(1.0, 1.0, turns=TURNS[:, 1:])


def test_sequences_without_a_chosen_token_get_nothing():
    nobody = torch.full((2, 3), -1)
    arrays = torch.full((2, 3), NAN)
    found = returns.gae_by_turn(
        arrays, arrays, nobody > 0, torch.full((2,), NAN), 0.9, 0.9, nobody, torch.ones(2).bool()
    )
    assert torch.equal(found, torch.zeros(2, 3))


# --- by comparison --------------------------------------------------------------------------------


def conversations(paid, turns, groups, penalties=None):
    """Whole conversations, one row of rewards each; penalties are taken off the rewards."""
    rewards, turns = torch.tensor(paid).double(), torch.tensor(turns)
    penalties = torch.zeros_like(rewards) if penalties is None else torch.tensor(penalties).double()
    log = Rollout.from_log(turns.clamp(min=0), turns > 0, rewards.sum(1), torch.tensor(groups))
    return replace(log, rewards=rewards - penalties, penalties=penalties, turns=turns)


# Three conversations on one prompt; the last has one turn only. Two tokens a turn, no replies.
THREE = conversations(
    paid=[[0, 1, 0, 5], [1, 2, 1, 0], [0, 6, 0, 0]],
    turns=[[1, 1, 2, 2], [1, 1, 2, 2], [1, 1, -1, -1]],
    groups=[7, 7, 7],
)


def test_turn_returns_by_hand():
    expected = [[6, 6, 5, 5], [4, 4, 1, 1], [6, 6, 0, 0]]
    assert returns.turn_returns(THREE.rewards, THREE.turns).tolist() == expected


def test_rloo_by_turn_by_hand():
    # Turn 1: 6, 4 and 6, each less the mean of the others. Turn 2: 5 and 1.
    expected = [[1, 1, 4, 4], [-2, -2, -4, -4], [1, 1, 0, 0]]
    assert RLOO(credit=returns.by_turn).advantages(THREE).tolist() == expected
    assert RLOO().advantages(THREE).tolist() == [1, -2, 1]  # 6, 4 and 6


def test_dr_grpo_and_grpo_by_turn_by_hand():
    means = torch.tensor([[2 / 3, 2 / 3, 2, 2], [-4 / 3, -4 / 3, -2, -2], [2 / 3, 2 / 3, 0, 0]])
    found = DrGRPO(credit=returns.by_turn).advantages(THREE)
    torch.testing.assert_close(found, means.double())
    spreads = torch.tensor([8**0.5 / 3, 8**0.5 / 3, 2, 2]).double()
    for algorithm in (GRPO(credit=returns.by_turn), DAPO(credit="by_turn")):
        found = algorithm.advantages(THREE)
        torch.testing.assert_close(found, means / (spreads + 1e-4))


def test_penalties_count_from_the_beginning_of_their_turn_on():
    penalties = [[1.0, 0, 0, 0], [0, 0, 0, 2.0], [0, 0, 0, 0]]
    paid = THREE.rewards.tolist()
    rollout = conversations(paid, THREE.turns.tolist(), [7, 7, 7], penalties)
    # Turn 1: 5, 2 and 6; turn 2: 5 and -1.
    expected = [[1, 1, 6, 6], [-3.5, -3.5, -6, -6], [2.5, 2.5, 0, 0]]
    found = RLOO(credit="by_turn").advantages(rollout)
    torch.testing.assert_close(found, torch.tensor(expected).double())
    # GRPO divides by the spread of the scores, not of what the penalties leave.
    found = GRPO(credit="by_turn").advantages(rollout)
    assert found[:2, 2].tolist() == pytest.approx([3 / 2.0001, -3 / 2.0001], rel=1e-4)


def test_groups_do_not_mix():
    rollout = conversations(
        paid=[[1, 0, 2], [0, 3, 9], [5, 5, 5], [6, 6, 7]],
        turns=[[1, 1, 2], [1, 2, 2], [1, 2, 3], [1, 2, 2]],
        groups=[0, 0, 1, 1],
    )
    found = RLOO(credit="by_turn").advantages(rollout)
    expected = [[-9, -9, -10], [9, 10, 10], [-4, -3, 0], [4, 3, 3]]
    assert found.tolist() == expected


@unhurried
@given(st.integers(0, 10**6))
def test_one_turn_each_is_the_whole_answer(seed):
    rewards, _, mask, _, _ = random_conversations(seed)
    mask[:, 0], rewards[:, 0] = True, rewards[:, 0].nan_to_num()
    rewards = torch.where(mask, rewards, 0.0)
    one = torch.where(mask, 1, -1)
    rollout = conversations(rewards.tolist(), one.tolist(), [0, 0, 1, 1, 1, 1])
    for algorithm in (RLOO, GRPO, DrGRPO):
        whole = algorithm().advantages(rollout)[:, None].expand_as(mask)
        found = algorithm(credit="by_turn").advantages(rollout)
        torch.testing.assert_close(found[mask], whole[mask], atol=1e-9, rtol=1e-9)


def test_a_log_knows_no_turns():
    log = Rollout.from_log(MASK.long(), MASK, torch.ones(1), torch.zeros(1, dtype=torch.int64))
    for algorithm in (RLOO(credit="by_turn"), PPO(credit="gae_by_turn")):
        with pytest.raises(UnmetNeedError, match=r"credit by turn .* `Rollout.turns`"):
            algorithm.advantages(log)


# --- the algorithms take it with one argument -----------------------------------------------------


def two_conversations():
    """The one from above and one that was cut in its second turn."""
    row = torch.cat([TURNS, TURNS])
    rollout = Rollout.from_log(row.clamp(min=0), row > 0, torch.zeros(2), torch.tensor([0, 1]))
    return replace(
        rollout,
        rewards=torch.cat([REWARDS, REWARDS]),
        values=torch.cat([VALUES, VALUES]).float(),
        bootstrap_values=torch.tensor([0.0, 20.0]),
        turns=row,
        mid_turn=torch.tensor([False, True]),
    )


@pytest.mark.parametrize("algorithm", [PPO, PPOPenalty])
@pytest.mark.parametrize("named", [False, True])
def test_ppo_fits_values_where_steps_begin(algorithm, named):
    def made(name):
        credit = name if named else getattr(returns, name)
        return algorithm(credit=credit, gamma=0.5, gae_lambda=0.25)

    rollout = two_conversations()
    for name, advantages, places in (
        ("gae_by_turn", [at_tokens(2.25, 2.0), at_tokens(4.75, 22.0)], [2, 6]),
        ("gae_by_answer", [at_tokens(9.0, 9.0), at_tokens(29.0, 29.0)], [2]),
    ):
        ppo = made(name)
        found = ppo.advantages(rollout)
        assert torch.equal(found, torch.cat(advantages))
        assert ppo.value_mask(rollout)[0].nonzero().flatten().tolist() == places
        targets = ppo.value_targets(rollout, found)
        assert torch.equal(targets[:, 2], 6 + found[:, 2]) and (targets[:, 3] == 0).all()
        batch = replace(rollout, advantages=found, value_targets=targets)
        values = torch.where(rollout.mask, 100.0, NAN)  # off by 100 - target where they count
        values[0, 2:7] = torch.tensor([targets[0, 2], 1e6, NAN, NAN, targets[0, 6] or 1e6])
        outputs = PolicyOutputs(rollout.logprobs, values, torch.zeros(2, 10))
        _, metrics = ppo.loss(batch, outputs)
        errors = (100 - targets[1, places]).square().sum() / (2 * 2 * len(places))
        assert metrics["value_loss"].item() == pytest.approx(errors.item())


def test_by_token_nothing_has_changed():
    rollout = two_conversations()
    ppo = PPO(gamma=0.5, gae_lambda=0.25)
    expected = returns.gae(
        rollout.rewards, rollout.values, rollout.mask, rollout.bootstrap_values, 0.5, 0.25
    )
    assert torch.equal(ppo.advantages(rollout), expected)
    assert torch.equal(
        PPO(credit=returns.gae, gamma=0.5, gae_lambda=0.25).advantages(rollout), expected
    )
    assert ppo.value_mask(rollout) is rollout.mask


def half(**arrays):
    """A credit of one's own: half of that by turn."""
    return returns.gae_by_turn(**arrays) / 2


def test_a_credit_of_ones_own():
    rollout = two_conversations()
    whole = PPO(credit=returns.gae_by_turn).advantages(rollout)
    own = PPO(credit=half)
    assert torch.equal(own.advantages(rollout), whole / 2)
    assert torch.equal(own.value_mask(rollout), rollout.mask)
    assert torch.equal(PPO(credit=f"{__file__}:half").advantages(rollout), whole / 2)


@functools.wraps(returns.gae_by_answer)
def wrapped(**arrays):
    return returns.gae_by_answer(**arrays)


def of_ones_own(**arrays):
    """Steps that are the tokens of the second turn."""
    return half(**arrays)


of_ones_own.begins = lambda mask, turns: turns == 2


@pytest.mark.parametrize(
    ("credit", "places"),
    [
        (functools.partial(returns.gae_by_turn), [2, 6]),
        (functools.partial(functools.partial(returns.gae_by_turn)), [2, 6]),
        (functools.partial(wrapped), [2]),
        (f"{__file__}:wrapped", [2]),
        (functools.partial(of_ones_own), [6, 7, 8]),
    ],
)
def test_a_credit_says_where_its_values_are_fitted(credit, places):
    rollout = two_conversations()
    found = PPO(credit=credit).value_mask(rollout)
    assert found[0].nonzero().flatten().tolist() == places


@pytest.mark.parametrize(
    ("algorithm", "known"), [(PPO, "gae_by_turn"), (GRPO, "by_turn"), (RLOO, "by_turn")]
)
def test_names_that_do_not_exist(algorithm, known):
    for wrong in ("turn", None, 3):
        with pytest.raises(OptionError, match=rf"credit is {wrong!r}; .*returns\.{known}"):
            algorithm(credit=wrong)
    with pytest.raises(ObjectNotFoundError, match="no 'gea'"):
        algorithm(credit="agents.returns:gea")


def test_explained_variance_is_that_of_the_values_that_are_fitted():
    policy = TransformerPolicy(TransformerConfig(3, 10, n_layer=1, n_head=1, n_embd=8))
    rollout = two_conversations()
    for credit in ("gae_by_turn", "gae"):
        trainer = Trainer(policy, PPO(credit=credit, minibatch_tokens=None, n_epochs=1))
        learned, metrics = trainer.learn_from(rollout)
        places = trainer.algorithm.value_mask(learned)
        expected = losses.explained_variance(learned.values, learned.value_targets, places)
        assert metrics["explained_variance"] == pytest.approx(expected.item())


def test_every_algorithm_with_a_credit_names_its_default_first():
    with_credit = {name for name, made in ALGORITHMS.items() if hasattr(made, "credit")}
    by_comparison = {"cispo", "dapo", "dr-grpo", "grpo", "gspo", "rloo"}
    assert with_credit == by_comparison | {"ppo", "ppo-penalty", "ppo-ptx", "tree-po"}


@pytest.mark.parametrize(
    ("make", "credit"), [(PPO, returns.by_turn), (GRPO, returns.gae_by_turn), (RLOO, "gae")]
)
def test_a_credit_of_the_other_kind_is_refused_at_once(make, credit):
    with pytest.raises(OptionError, match="it must be a function such as returns"):
        make(credit=credit)
