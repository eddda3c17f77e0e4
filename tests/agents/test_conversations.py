"""Learning in conversations: what the world says is read, and never chosen."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from letters import Letters

from agents import GRPO, PPO, RLOO, Learner, returns
from agents.collector import Collector
from agents.evaluation import answer_outputs, answer_prompts, evaluate
from policies import TransformerPolicy
from textenv import BatchedWorld, Prompt, Reply, TextVectorEnv, World
from textenv.errors import FailedWorldWarning, NotSavedWarning, WorldError
from textenv.seeding import keyed_generator

torch.set_num_threads(1)
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16}
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]


class Chance(World):
    """Replies at random, pays at random, ends at random."""

    def begin(self, record, rng):
        return "".join(rng.choice(list("ab"), 2))

    def reply(self, turn, rng):
        said = "".join(rng.choice(list("cd"), rng.integers(0, 4)))
        return Reply(said, float(rng.random()), terminated=bool(rng.random() < 0.2))


class AskTwice(World):
    """Asks for a letter, names the letter that is right, and asks for it again."""

    def begin(self, record, rng):
        self.right = "ab"[rng.integers(2)]
        return "c"

    def reply(self, turn, rng):
        if turn.number == 1:
            return Reply(self.right)
        return Reply(reward=float(turn.text == self.right), terminated=True)


def make(num_envs=4, world=Chance, **options):
    defaults = {"tokenizer": Letters(4, stop=True), "max_prompt_tokens": 2, "max_new_tokens": 14}
    return TextVectorEnv(num_envs, world=world, **defaults | {"max_turn_tokens": 3} | options)


def policy_for(envs, seed=0):
    policy = TransformerPolicy.for_env(envs, **SHAPE, seed=seed)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in policy.transformer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("masks", [{}, {"min_new_tokens": 2}])
def test_a_rollout_holds_what_was_chosen_and_nothing_else(mode, masks):
    policy = policy_for(make())

    def collector():
        return Collector(policy, make(autoreset_mode=mode, **masks), seed=0)

    for rollout in (collector().collect_steps(13), collector().collect_episodes(12)):
        outputs = policy.outputs(rollout.tokens, rollout.mask, action_masks=rollout.action_masks)
        for found, kept in ((outputs.logprobs, rollout.logprobs), (outputs.values, rollout.values)):
            torch.testing.assert_close(found[rollout.mask], kept[rollout.mask], atol=1e-4, rtol=0)
        torch.testing.assert_close(rollout.rewards.sum(1), rollout.scores)
        assert (rollout.rewards[~rollout.mask] == 0).all()
        # What the world says stands between the turns of a sequence, outside the mask.
        assert (rollout.mask.int().diff(dim=1) == 1).sum(1).max() > 1


def test_cached_steps_equal_uncached_ones():
    envs = make(3)
    policy = policy_for(envs)
    cache = policy.new_cache(3, envs.single_observation_space.shape[0])
    observations, _ = envs.reset(seed=0)
    for number in range(40):
        step = policy.act(observations, cache, uniforms=np.full(3, (number % 7) / 7))
        alone = policy.act(observations, None, uniforms=np.full(3, (number % 7) / 7))
        assert np.abs(step.logprobs - alone.logprobs).max() < 1e-5
        observations, *_ = envs.step(step.actions)


def test_gamma_and_lambda_act_on_chosen_tokens_alone():
    envs = make()
    rollout = Collector(policy_for(envs), envs, seed=0).collect_episodes(8)
    spread = returns.gae(
        rollout.rewards, rollout.values, rollout.mask, rollout.bootstrap_values, 0.9, 0.8
    )
    for row in range(len(rollout)):
        mask = rollout.mask[row]
        close = returns.gae(
            rollout.rewards[row, mask][None],
            rollout.values[row, mask][None],
            torch.ones(1, int(mask.sum()), dtype=torch.bool),
            rollout.bootstrap_values[row, None],
            0.9,
            0.8,
        )
        torch.testing.assert_close(spread[row, mask], close[0])


def test_what_the_world_appends_is_encoded_once():
    envs = make(4, max_new_tokens=30)
    policy = policy_for(envs)
    encoded = []
    extend = policy.extend
    policy.extend = lambda store, plan: (encoded.append(len(plan.tokens)), extend(store, plan))[1]
    collector = Collector(policy, envs, seed=0)
    played = 0
    for _ in range(30):
        collector._step()
    for closed in collector._closed:
        played += int((closed["tokens"] < envs.pad_token).sum())
    played += int((collector._observations < envs.pad_token).sum())
    assert sum(encoded) <= played  # the last token of a text is never read


class Long(Chance):
    """Never ends an episode."""

    def reply(self, turn, rng):
        return Reply("".join(rng.choice(list("cd"), rng.integers(0, 6))))


def test_appended_ids_are_encoded_together_with_the_next_choice():
    """Each choice encodes what has been added since: the token chosen last, and a reply behind it.

    Four rows, whose replies have 0 to 5 ids and come at different steps.
    """
    envs = make(4, Long, max_new_tokens=90)
    policy, numbers = policy_for(envs), np.random.default_rng(0)
    passes = []
    extend = policy.extend
    policy.extend = lambda store, plan: (passes.append(plan.counts.tolist()), extend(store, plan))[
        1
    ]
    observations, _ = envs.reset(seed=0)
    cache = policy.new_cache(*observations.shape)
    added, replies = np.full(4, 2), 0  # the openings
    for _ in range(20):
        before = cache.encoded_tokens
        step = policy.act(observations, cache, uniforms=numbers.random(4))
        assert cache.encoded_tokens - before == added.sum()
        assert passes.pop() == added.tolist() and not passes  # in one pass
        observations, _, terminated, truncated, infos = envs.step(step.actions)
        assert not (terminated | truncated).any()
        told = infos.get("_turn", np.zeros(4, dtype=bool))
        added = np.ones(4, dtype=np.int64)
        for row in np.flatnonzero(told):
            added[row] += len(infos["reply_tokens"][row])
            replies += 1
    assert replies > 20


@pytest.mark.parametrize("algorithm", [PPO(n_epochs=2, minibatch_tokens=None), RLOO(), GRPO()])
def test_a_policy_learns_to_listen(algorithm):
    """The right answer is in the reply, and nowhere else."""
    envs = make(32, AskTwice, max_turn_tokens=1, group_size=8, stop_tokens=[])
    for seed in (0, 1, 2):
        policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=2, n_embd=32, seed=seed)
        learner = Learner(policy, envs, algorithm, n_episodes=256, learning_rate=1e-2, seed=seed)
        updates = learner.learn(15_000, progress=False)
        assert updates[0].score < 0.4 and updates[-1].score > 0.9


class Together(BatchedWorld):
    """Keeps nothing that could be saved, and may not be replayed."""

    replayable = False

    def reply(self, rows, turns, rngs):
        return [Reply("d", reward=float(turn.text == "a")) for turn in turns]


def test_a_world_that_cannot_be_saved_can_be_learned_in(tmp_path):
    envs = make(4, Together(), prompts=["a"], max_turns=2)
    learner = Learner(policy_for(envs), envs, PPO(), n_steps=12)
    with pytest.warns(NotSavedWarning, match="Together keeps its state to itself"):
        assert learner.update().tokens == 48
    with pytest.raises(WorldError, match="Together keeps its state to itself"):
        learner.save(tmp_path)


def test_a_world_is_saved_with_its_learner(tmp_path):
    def learner():
        envs = make(4, Chance)
        return Learner(policy_for(envs), envs, PPO(), n_steps=9, seed=3)

    whole, part, resumed = learner(), learner(), learner()
    expected = [whole.update().score for _ in range(4)]
    assert [part.update().score for _ in range(2)] == expected[:2]
    part.save(tmp_path)
    resumed.load(tmp_path)
    assert [resumed.update().score for _ in range(2)] == expected[2:]


class Failing(World):
    """Raises after every a."""

    often = "a"

    def reply(self, turn, rng):
        if turn.text in self.often:
            raise KeyError("lost")
        return Reply("d")


def test_failed_worlds_are_counted_and_not_learned_from_in_silence():
    options = {"prompts": ["a"], "max_turn_tokens": 1, "stop_tokens": [], "max_turns": 2}
    envs = make(8, Failing, **options)
    learner = Learner(policy_for(envs), envs, PPO(), n_episodes=32)
    with pytest.warns(FailedWorldWarning, match=r"failed in \d+ .*KeyError: 'lost'; in .* line"):
        update = learner.update()
    learner.update()  # it is said once
    assert 0 < update.metrics["failed_worlds"] < 32

    class Always(Failing):
        often = "abcd"

    envs = make(8, Always, **options)
    with pytest.raises(WorldError, match=r"failed in all .* Always.reply raised KeyError: 'lost'"):
        Learner(policy_for(envs), envs, PPO(), n_episodes=32).update()


class Away(World):
    """Is away in half of the episodes, and pays 1 in the others."""

    def begin(self, record, rng):
        return "a"

    def reply(self, turn, rng):
        if rng.random() < 0.5:
            raise OSError("away")
        return Reply(reward=1.0, terminated=True)


@pytest.mark.filterwarnings("ignore::textenv.errors.FailedWorldWarning")
@pytest.mark.parametrize("mode", MODES)
def test_an_episode_whose_world_failed_is_no_bad_answer(mode):
    envs = make(8, Away, group_size=4, autoreset_mode=mode)
    update = Learner(policy_for(envs), envs, GRPO(), n_episodes=16).update()
    assert 0 < update.metrics["failed_worlds"] < 16
    assert update.score == 1 and update.episodes == 16
    learned = update.rollout  # who is left of a group is compared with its own kind
    assert len(learned) <= 16 - update.metrics["failed_worlds"]
    assert (learned.scores == 1).all() and not learned.advantages.any()
    found = Collector(policy_for(envs), envs, seed=0).collect_episodes(16)
    failed = found.endings["failed"] == 1
    assert failed.any() and (found.scores.isnan() == failed).all()


def test_evaluation_measures_what_was_chosen():
    envs = make(3, AskTwice, max_turn_tokens=1, min_new_tokens=1)
    policy = policy_for(envs)
    prompts = [Prompt("")] * 3
    numbers = [keyed_generator(0, row) for row in range(3)]
    answers = answer_prompts(policy, envs, prompts, temperature=1.0, generators=numbers)
    assert (answers.mask.sum(1) == 2).all()  # a letter in each of two turns
    assert (answers.rewards.sum(1) == [sample.score for sample in answers.samples]).all()
    outputs = answer_outputs(policy, answers, 1.0)
    assert torch.isfinite(outputs.logprobs).all()
    result = evaluate(policy, envs, prompts * 4, reference=policy)
    assert result.kl_per_answer == 0 and len(result.samples) == 12
