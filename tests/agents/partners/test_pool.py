"""A pool of earlier weights, and learners with partners that are saved and go on."""

import numpy as np
import pytest
import torch
from small_games import Nim

from agents import PPO, Learner
from agents.partners import Pool, TwoPlayers, exploitability
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.errors import WorldError
from textenv.tokenizers import CharacterTokenizer

torch.set_num_threads(1)
HEAPS = [{"prompt": str(heap)} for heap in range(1, 6)]


def frozen(policy):
    return policy.frozen_copy()


def present(policy):
    return policy


FORMS = [present, frozen, Pool, lambda policy: Pool(policy, present=0.5)]


def learner_for(form, seed=0, algorithm=None, **settings):
    players = TwoPlayers(Nim)
    envs = TextVectorEnv(
        32,
        prompts=HEAPS,
        world=players,
        tokenizer=CharacterTokenizer("0123456789"),
        allowed_tokens=[1, 2, 3],
        stop_tokens=[],
        max_prompt_tokens=3,
        max_turn_tokens=1,
        max_new_tokens=12,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=32, seed=seed)
    players.partner = form(policy)
    algorithm = algorithm or PPO(n_epochs=4, entropy_coef=0.01)
    return Learner(policy, envs, algorithm, seed=seed, **settings), players


def weights(policy):
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def test_a_snapshot_stays_as_it_was():
    learner, players = learner_for(Pool, n_steps=8, learning_rate=0.01)
    first = weights(learner.policy)
    learner.update()
    second = weights(learner.policy)
    players.partner.add()
    learner.update()
    assert [
        torch.equal(weights(s), w)
        for s, w in zip(players.partner.snapshots, (first, second), strict=True)
    ] == [True, True]
    assert not torch.equal(weights(learner.policy), second)


def test_opponents_are_drawn_evenly_and_by_the_draw_alone():
    pool = Pool(learner_for(present, n_steps=8)[0].policy, present=0.25)
    for _ in range(2):
        pool.add()
    chosen = [pool.choose(np.random.default_rng(seed)) for seed in range(2000)]
    assert chosen == [pool.choose(np.random.default_rng(seed)) for seed in range(2000)]
    for number in (None, 0, 1, 2):
        assert 400 < chosen.count(number) < 600
    assert pool.player(None) is pool.policy and pool.player(2) is pool.snapshots[2]


def grown(learner, players, updates):
    """Scores and weights of some updates; a pool grows at every second one."""
    found = []
    for _ in range(updates):
        update = learner.update()
        if update.number % 2 == 0 and isinstance(players.partner, Pool):
            players.partner.add()
        found.append((update.score, weights(learner.policy).sum().item()))
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [{"n_steps": 5}, {"n_episodes": 24}])
def test_a_learner_with_a_partner_goes_on_bit_for_bit(form, length, tmp_path):
    def make():
        return learner_for(form, seed=3, learning_rate=0.01, **length)

    whole, part, resumed = make(), make(), make()
    expected = grown(*whole, 6)
    assert grown(*part, 3) == expected[:3]
    part[0].save(tmp_path)
    resumed[0].load(tmp_path)
    assert grown(*resumed, 3) == expected[3:]
    numbers = [{t.number for t in players._tables.values()} for _, players in (whole, resumed)]
    assert numbers[0] == numbers[1]


def test_a_state_of_another_kind_of_partner_is_refused():
    (pooled, _), (plain, _) = (learner_for(form, n_steps=5) for form in (Pool, present))
    for one, other, says in ((pooled, plain, "has no pool"), (plain, pooled, "has a pool")):
        with pytest.raises(WorldError, match=says):
            one.envs.load_state_dict(other.envs.state_dict())


@pytest.mark.parametrize(("form", "seed"), [(present, 0), (present, 1), (present, 2), (Pool, 0)])
def test_self_play_finds_the_best_play(form, seed):
    learner, players = learner_for(form, seed, n_episodes=128, learning_rate=3e-3)
    assert exploitability(learner.policy, players, HEAPS) > 0.4
    for update in learner.updates(6_000):
        if update.number % 5 == 0 and form is Pool:
            players.partner.add()
    assert exploitability(learner.policy, players, HEAPS) < 0.05
