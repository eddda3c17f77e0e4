"""VinePPO: its values are what continuations earn, and its gradient is the exact one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from letters import Letters
from test_exact_gradients import (
    ANSWERS,
    BETA,
    CLOSE,
    MASK,
    OPTIONS,
    POLICY,
    REFERENCE,
    P,
    exact_gradient,
    flat_gradient,
    rollout_of,
    token_logprobs,
)

from agents import Learner, Rollout, VinePPO
from agents.collector import Collector
from policies import TransformerPolicy
from textenv import Prompt, Reply, Start, TextVectorEnv, World
from textenv.errors import OptionError, UnmetNeedError
from textenv.starts import OpeningText

torch.set_num_threads(1)


def known(rollout):
    """The rollout with what a collector knows: where its sequences start, and their turns."""
    start = Start(Prompt("a"), opening=OpeningText("a", np.array([0])), episode_seed=0)
    turns = torch.where(rollout.mask, 1, -1)
    return replace(rollout, starts=(start,) * len(rollout), turns=turns)


def value_of(start, beta):
    """What is expected from a start on: the sum over all answers that go on from it."""
    begun = [] if start.answer is None else start.answer.tolist()
    same = (ANSWERS.tokens[:, 1 : 1 + len(begun)] == begun).all(1)
    with torch.no_grad():
        ratios = token_logprobs(POLICY) - token_logprobs(REFERENCE)
    rest = ratios[:, 1 + len(begun) :].double().sum(1).numpy()
    returns = ANSWERS.rewards - beta * rest
    return float(P[same] @ returns[same] / P[same].sum())


def exactly(beta):
    """In place of a collector: one continuation that earns what is expected."""

    def collect_from(starts, n):
        values = torch.tensor([value_of(start, beta) for start in starts for _ in range(n)])
        mask = torch.ones(len(values), 1, dtype=torch.bool)
        return Rollout.from_log(mask.long(), mask, values.double(), torch.arange(len(values)))

    return collect_from


@pytest.mark.parametrize("step_tokens", [1, 2])
@pytest.mark.parametrize("beta", [0.0, BETA])
def test_the_expected_gradient_is_the_exact_one(step_tokens, beta):
    """The advantage is linear in the values, and continuations are independent of the answer."""
    vine = VinePPO(continuations=2, step_tokens=step_tokens)
    rollout = known(rollout_of(range(len(ANSWERS)), range(len(ANSWERS)), beta))
    advantages = vine.advantages(vine.look_ahead(rollout, exactly(beta)))
    weighted = torch.as_tensor(P)[:, None] * advantages * token_logprobs(POLICY)
    gradient = flat_gradient(-(weighted * MASK).sum().float())
    torch.testing.assert_close(gradient, exact_gradient(beta), **CLOSE)


def test_continuations_earn_what_is_expected():
    envs = TextVectorEnv(64, **OPTIONS)
    collector = Collector(POLICY, envs, seed=0)
    for begun in (None, [0], [1]):
        start = Start(Prompt("a"), answer=None if begun is None else np.array(begun))
        earned = collector.collect_from([start], 3000).scores
        error = earned.std().item() / 3000**0.5
        assert abs(earned.mean().item() - value_of(start, 0.0)) < 4 * error


# ---------------------------------------------------------------- steps and advantages by hand


def by_hand():
    """A turn of three tokens, two of the world's, a turn of two."""
    turns = torch.tensor([[-1, 1, 1, 1, -1, -1, 2, 2]])
    mask = turns >= 0
    rewards = torch.tensor([[0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 2.0]]).double()
    log = Rollout.from_log(torch.arange(8)[None], mask, torch.tensor([2.5]), torch.tensor([0]))
    start = Start(Prompt("a"), opening=OpeningText("a", np.array([0])), episode_seed=4)
    return replace(log, turns=turns, rewards=rewards, starts=(start,))


def test_a_step_ends_with_its_turn():
    assert VinePPO(step_tokens=2).steps(by_hand()).tolist() == [[-1, 1, 1, 2, -1, -1, 3, 3]]
    assert VinePPO(step_tokens=8).steps(by_hand()).tolist() == [[-1, 1, 1, 1, -1, -1, 2, 2]]
    assert VinePPO(step_tokens=1).steps(by_hand()).tolist() == [[-1, 1, 2, 3, -1, -1, 4, 5]]


def test_advantages_by_hand():
    asked = []

    def collect_from(starts, n):
        asked.extend((None if s.answer is None else s.answer.tolist(), s.turns) for s in starts)
        earned = torch.tensor([1.0, 3.0, 1.0, 1.0, float("nan"), 2.0]).double()  # of three starts
        mask = torch.ones(6, 1, dtype=torch.bool)
        return Rollout.from_log(mask.long(), mask, earned, torch.arange(6))

    vine = VinePPO(continuations=2, step_tokens=2)
    rollout = vine.look_ahead(by_hand(), collect_from)
    assert asked == [
        (None, ()),
        ([1, 2], ()),
        ([1, 2, 3, 4, 5], ((3, 5, 4),)),
    ]
    assert rollout.values.tolist() == [[0, 2, 0, 1, 0, 0, 2, 0]]
    # V: 2, 1, 2 where steps begin; the second step is paid 0.5, the third 2.
    expected = [[0, 1 - 2, 1 - 2, 0.5 + 2 - 1, 0, 0, 2 - 2, 2 - 2]]
    assert vine.advantages(rollout).tolist() == expected


@pytest.mark.parametrize(
    "earned, expected",
    [  # of the beginnings of three steps, the second of which is paid 0.5 and the third 2
        ([2, None, 2], [2 + 0.5 - 2, 0, 0]),
        ([2, 1, None], [1 - 2, 0.5 + 2 - 1, 0]),
        ([None, None, 4], [0, 0, 2 - 4]),
        ([2, None, None], [0.5 + 2 - 2, 0, 0]),
        ([None, None, None], [0, 0, 0]),
    ],
)
def test_a_step_from_which_no_continuation_has_a_score(earned, expected):
    paid = torch.tensor([float("nan") if e is None else float(e) for e in earned]).double()

    def collect_from(starts, n):
        mask = torch.ones(3, 1, dtype=torch.bool)
        return Rollout.from_log(mask.long(), mask, paid, torch.arange(3))

    vine = VinePPO(continuations=1, step_tokens=2)
    one, two, three = expected
    found = vine.advantages(vine.look_ahead(by_hand(), collect_from))
    assert found.tolist() == [[0, one, one, two, 0, 0, three, three]]


# ---------------------------------------------------------------- in training


class AskTwice(World):
    """Asks for a letter, names the letter that is right, and asks for it again."""

    def begin(self, record, rng):
        self.right = "ab"[rng.integers(2)]
        return "c"

    def reply(self, turn, rng):
        if turn.number == 1:
            return Reply(self.right)
        return Reply(reward=float(turn.text == self.right), terminated=True)


def test_it_learns_to_listen_and_continuations_count():
    envs = TextVectorEnv(
        32,
        world=AskTwice,
        tokenizer=Letters(4, stop=True),
        max_prompt_tokens=2,
        max_new_tokens=14,
        max_turn_tokens=1,
        stop_tokens=[],
    )
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=2, n_embd=32, seed=0)
    learner = Learner(
        policy, envs, VinePPO(continuations=4), n_episodes=64, learning_rate=1e-2, seed=0
    )
    first = learner.update()
    # Two choices in each of 64 games; from each, 4 continuations of two choices and of one.
    assert first.tokens == 64 * (2 + 4 * (2 + 1)) and first.episodes == 64
    assert len(first.rollout) == 64 and first.score < 0.4
    scores = [learner.update().score for _ in range(16)]
    assert scores[-1] > 0.9


def test_the_kl_penalty_is_in_the_values():
    """Nothing is paid, so a value is minus the KL of what follows."""
    envs = TextVectorEnv(64, **OPTIONS | {"reward": lambda episodes: [0.0] * len(episodes)})
    policy = TransformerPolicy(POLICY.config, seed=1)
    policy.load_state_dict(POLICY.state_dict())
    vine = VinePPO(continuations=1000, step_tokens=2)
    options = {"reference": REFERENCE, "kl_coef": BETA, "n_episodes": 2, "seed": 0}
    rollout = Learner(policy, envs, vine, **options).collect()
    with torch.no_grad():
        ratios = (token_logprobs(POLICY) - token_logprobs(REFERENCE)).double().sum(1).numpy()
    expected = -BETA * float(P @ ratios)
    error = BETA * float((P @ (ratios - P @ ratios) ** 2) ** 0.5) / 1000**0.5
    assert rollout.mask[:, 1].all() and expected < -0.05
    assert (rollout.values[:, 1] - expected).abs().max() < 4 * error


def test_what_it_needs():
    with pytest.raises(OptionError, match="continuations"):
        VinePPO(continuations=0)
    envs = TextVectorEnv(4, **OPTIONS)
    with pytest.raises(UnmetNeedError, match="learns from whole episodes"):
        Learner(TransformerPolicy(POLICY.config), envs, VinePPO(), n_steps=8)
