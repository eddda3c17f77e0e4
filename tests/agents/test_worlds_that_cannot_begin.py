"""Learners and worlds whose episodes cannot begin for a while, or for good."""

import pytest
from gymnasium.vector import AutoresetMode

from agents import PPO, Collector, Learner
from policies import TransformerPolicy
from textenv import Prompt, Reply, Start, TextVectorEnv, World
from textenv.errors import NotSavedWarning, WorldError

MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]


class Unsteady(World):
    """Every third beginning fails; all do while `broken`."""

    begun, broken = 0, False

    def begin(self, record, rng):
        Unsteady.begun += 1
        if self.broken or Unsteady.begun % 3 == 0:
            raise OSError("busy")
        return f"{rng.integers(1000)}>"

    def reply(self, turn, rng):
        return Reply(str(turn.number), reward=1.0, terminated=turn.number == 2)


def make(mode, **options):
    Unsteady.begun, Unsteady.broken = 0, False
    envs = TextVectorEnv(
        2,
        world=Unsteady,
        max_prompt_tokens=6,
        max_turn_tokens=2,
        max_new_tokens=16,
        autoreset_mode=mode,
        **options,
    )
    return TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=16, seed=0), envs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("group_size", [1, 2])
def test_episodes_that_begin_late_are_whole(mode, group_size):
    policy, envs = make(mode, group_size=group_size)
    rollout = Collector(policy, envs, seed=0).collect_episodes(12)
    assert rollout.scores.tolist() == [2.0] * 12 and Unsteady.begun > 15
    openings = [bytes(t[t < 256][:8].tolist()).partition(b">")[0] for t in rollout.tokens]
    assert rollout.prompt_lengths.tolist() == [len(digits) + 1 for digits in openings]
    assert len(set(openings)) == 12 // group_size
    assert (rollout.mask.int().argmax(1) == rollout.prompt_lengths).all()


@pytest.mark.parametrize("mode", MODES)
def test_steps_go_on_around_a_row_that_cannot_begin(mode):
    policy, envs = make(mode)
    collector = Collector(policy, envs, seed=0)
    for _ in range(6):
        rollout = collector.collect_steps(5)
        assert rollout.mask.any(1).all()
        state = collector.state_dict()
    _, others = make(mode)
    again = Collector(policy, others, seed=0)
    again.load_state_dict(state)
    for one in (collector, again):
        Unsteady.begun = 0
        one.rollout = one.collect_steps(12)
    assert (collector.rollout.tokens == again.rollout.tokens).all()


def test_a_learner_stops_with_the_error_if_no_row_can_begin():
    policy, envs = make(AutoresetMode.SAME_STEP)
    learner = Learner(policy, envs, PPO(), n_episodes=4, seed=0)
    learner.update()
    Unsteady.broken = True
    with pytest.raises(WorldError, match=r"Unsteady.begin raised OSError: busy"):
        learner.update()


class Private(World):
    """Can be neither saved nor replayed."""

    replayable = False

    def begin(self, record, rng):
        self.lock = object()
        return "p"

    def reply(self, turn, rng):
        return Reply(reward=1.0, terminated=True)


def test_a_run_that_cannot_be_saved_says_so_when_it_begins():
    envs = TextVectorEnv(2, world=Private, max_prompt_tokens=2, max_new_tokens=4)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=16, seed=0)
    learner = Learner(policy, envs, PPO(), n_episodes=4, seed=0)
    with pytest.warns(NotSavedWarning, match=r"neither saved nor resumed: Private has attributes"):
        learner.update()
    learner.update()  # once is enough


def test_continuations_wait_for_their_beginning_too():
    policy, envs = make(AutoresetMode.SAME_STEP)
    collector = Collector(policy, envs, seed=0)
    Unsteady.begun = 0
    rollout = collector.collect_from([Start(Prompt(""))], 9)
    assert rollout.scores.tolist() == [2.0] * 9 and Unsteady.begun > 9 + 2
