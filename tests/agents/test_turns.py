"""What a rollout knows of an episode: its turns, its prompt's record, and what a hook adds."""

from dataclasses import replace
from itertools import product

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from letters import Letters
from toys import ScriptedPolicy, ToolEnv, letters_env

from agents import GRPO, PPO, Learner, OffPolicyGradient, Rollout, Trainer, returns
from agents.collector import Collector
from policies import TransformerPolicy
from textenv import Prompt, Reply, TextEnv, TextVectorEnv, World
from textenv.errors import AnnotationError, PromptError

torch.set_num_threads(1)
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
A, B, STOP, PAD = 0, 1, 4, 5


class Twice(World):
    """Replies `cd` to the first turn and ends the episode after the second."""

    def begin(self, record, rng):
        return "b"

    def reply(self, turn, rng):
        return Reply("cd", reward=float(turn.number), terminated=turn.number == 2)


OPTIONS = {
    "world": Twice,
    "prompts": [{"prompt": "a", "secret": 7}],
    "tokenizer": Letters(4, stop=True),
    "max_prompt_tokens": 1,
    "max_new_tokens": 8,
    "max_turn_tokens": 2,
}


def collector_of(script, mode=AutoresetMode.SAME_STEP, num_envs=1, **options):
    envs = TextVectorEnv(num_envs, autoreset_mode=mode, **OPTIONS | options)
    return Collector(ScriptedPolicy(5, 9, script), envs, seed=0)


def turns_of(rollout):
    """Text and turn of each place, without the padding."""
    return [
        (text[text != PAD].tolist(), turns[text != PAD].tolist())
        for text, turns in zip(rollout.tokens, rollout.turns, strict=True)
    ]


# Row 0 says "aa" and "b", row 1 says nothing and then "ab". Opening b, reply c d.
SCRIPT = [[A, STOP], [A, A], [B, B], [STOP, B], [A, A], [A, A], [A, A]]
ROW_0 = ([B, A, A, 2, 3, B, STOP], [-1, 1, 1, -1, -1, 2, 2])
ROW_1 = ([B, STOP, 2, 3, A, B], [-1, 1, -1, -1, 2, 2])


@pytest.mark.parametrize("mode", MODES)
def test_every_chosen_token_knows_its_turn(mode):
    rollout = collector_of(SCRIPT, mode, num_envs=2).collect_episodes(2)
    assert turns_of(rollout) == [ROW_1, ROW_0]
    assert not rollout.mid_turn.any()
    assert rollout.turns.dtype == torch.int64
    assert rollout.records == ({"prompt": "a", "secret": 7},) * 2


@pytest.mark.parametrize("mode", MODES)
def test_a_vector_of_gymnasiums_own(mode):
    envs = gym.vector.SyncVectorEnv([lambda: TextEnv(**OPTIONS)] * 2, autoreset_mode=mode)
    found = Collector(ScriptedPolicy(5, 9, SCRIPT), envs, seed=0).collect_episodes(2)
    expected = collector_of(SCRIPT, mode, num_envs=2).collect_episodes(2)
    assert torch.equal(found.turns, expected.turns)
    assert torch.equal(found.mid_turn, expected.mid_turn)
    assert found.records == expected.records


@pytest.mark.parametrize("mode", MODES)
def test_a_rollout_may_begin_in_the_middle_of_a_turn(mode):
    collector = collector_of([[A], [A], [B], [STOP], [A], [A], [A], [A]], mode)
    first, second, third = (collector.collect_steps(n) for n in (1, 2, 1))
    assert turns_of(first) == [([B, A], [-1, 1])]
    assert turns_of(second) == [([B, A, A, 2, 3, B], [-1, -1, 1, -1, -1, 2])]
    assert turns_of(third) == [([*ROW_0[0]], [-1] * 6 + [2])]
    assert [r.mid_turn.tolist() for r in (first, second, third)] == [[True], [True], [False]]
    # A rollout that ends where a turn does.
    border = collector_of([[A], [A], [B]], mode).collect_steps(2)
    assert turns_of(border) == [([B, A, A, 2, 3], [-1, 1, 1, -1, -1])]
    assert border.mid_turn.tolist() == [False]


@pytest.mark.parametrize("mode", MODES)
def test_turns_and_records_are_those_of_a_saved_learner(mode, tmp_path):
    def learner():
        options = {"prompts": [{"prompt": "a", "secret": n} for n in range(9)], "group_size": 2}
        envs = TextVectorEnv(4, autoreset_mode=mode, **OPTIONS | options)
        policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8, seed=0)
        algorithm = OffPolicyGradient(replay=3)
        reference = policy.frozen_copy()
        return Learner(policy, envs, algorithm, reference=reference, n_episodes=4, seed=1)

    whole, part, resumed = learner(), learner(), learner()
    expected = [whole.update().rollout for _ in range(4)]
    for _ in range(2):
        part.update()
    part.save(tmp_path)
    resumed.load(tmp_path)
    for rollout in expected[2:]:
        found = resumed.update().rollout
        assert len(found) == 12  # with those of the past
        assert torch.equal(found.turns, rollout.turns)
        assert torch.equal(found.mid_turn, rollout.mid_turn)
        assert found.records == rollout.records
    assert len({record["secret"] for record in rollout.records}) > 2
    for group in rollout.groups.unique():
        of = [rollout.records[s] for s in (rollout.groups == group).nonzero().flatten()]
        assert of == of[:1] * 2


@pytest.mark.parametrize("mode", MODES)
def test_a_collector_goes_on_in_the_middle_of_a_turn(mode):
    script = [[A], [A], [B], [STOP]]
    before = collector_of(script, mode)
    before.collect_steps(3)
    after = collector_of(script[3:], mode)
    after.load_state_dict(before.state_dict())
    assert turns_of(after.collect_steps(1)) == [(ROW_0[0], [-1] * 6 + [2])]


def test_a_state_of_an_earlier_version_has_one_turn():
    envs = letters_env(2)

    def collector(script):
        return Collector(ScriptedPolicy(5, 4, script), envs, seed=0)

    old = collector([[A, B], [STOP, A], [B, STOP]])
    for _ in range(2):
        old._step()
    state = old.state_dict()
    del state["turns"], state["records"], state["open"]["turns"]
    for closed in state["closed"]:
        del closed["turns"], closed["records"], closed["mid_turn"]
    new = collector([[B, STOP]])
    new.load_state_dict(state)
    rollout = new.collect_steps(1)
    assert torch.equal(rollout.turns, torch.where(rollout.mask, 1, -1))
    assert rollout.records is None


def test_without_a_world_there_is_one_turn():
    script = [[A, B], [STOP, A], [B, STOP], [A, A]]
    envs = letters_env(2, prompts=[{"prompt": "a", "weight": 2.0}])
    rollout = Collector(ScriptedPolicy(5, 4, script), envs, seed=0).collect_steps(4)
    assert torch.equal(rollout.turns, torch.where(rollout.mask, 1, -1))
    assert rollout.mid_turn.tolist() == (~rollout.finished).tolist()
    assert rollout.mid_turn.any()
    assert rollout.records == ({"weight": 2.0, "prompt": "a"},) * len(rollout)


def test_an_environment_that_tells_nothing():
    """Tokens of a tool do not make a turn: only `infos["turn"]` does."""
    rollout = Collector(ScriptedPolicy(4, 12, [[1], [2], [0]]), ToolEnv()).collect_steps(3)
    assert turns_of(rollout)[0][1][:7] == [-1, 1, -1, 1, -1, -1, 1]
    assert rollout.records is None


class Border(ToolEnv):
    """Says when a turn is over, the end of the episode included, and begins behind two turns."""

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset()
        return observation, {"turn": np.array([2]), "record": np.array([{"id": 1}], dtype=object)}

    def step(self, actions):
        told = self.choices + 3
        *result, infos = super().step(actions)
        if result[2][0]:
            infos["final_info"] = {"turn": np.array([told])}
            return *result, infos | self.reset()[1]
        return *result, {"turn": np.array([told])}


def test_a_foreign_environment_says_which_turn_an_episode_begins_with():
    collector = Collector(ScriptedPolicy(4, 12, [[1], [0], [2], [1]]), Border())
    rollout = collector.collect_steps(4)
    assert rollout.turns[rollout.mask].tolist() == [3, 4, 5, 3]
    assert rollout.records == ({"id": 1},) * 2
    assert rollout.mid_turn.tolist() == [False, False]


# --- records --------------------------------------------------------------------------------------


def test_records_of_mixed_types_pass_through_gymnasiums_vectors():
    """Columns that are a number in one row and a text in another fit no array of one dtype."""
    options = {"reward": lambda episodes: [0.0] * len(episodes), "max_new_tokens": 1}
    answers = [3, "three", None, [3, 3]]
    makers = [
        lambda answer=answer: TextEnv(prompts=[{"prompt": "a", "answer": answer}], **options)
        for answer in answers
    ]
    envs = gym.vector.SyncVectorEnv(makers)
    _, infos = envs.reset()
    assert [record["answer"] for record in infos["record"]] == answers
    policy = TransformerPolicy.for_env(
        TextEnv(prompts=["a"], **options), n_layer=1, n_head=1, n_embd=8
    )
    rollout = Collector(policy, envs, seed=0).collect_episodes(4)
    assert [record["answer"] for record in rollout.records] == answers


def test_a_record_is_what_the_world_was_given():
    given = []

    class Notes(Twice):
        def begin(self, record, rng):
            given.append(record)
            return "b"

    prompts = [{"prompt": "a", "secret": n} for n in range(5)]
    collector = collector_of(SCRIPT, world=Notes, prompts=prompts, num_envs=2)
    rollout = collector.collect_episodes(2)
    assert list(rollout.records) == [given[1], given[0]]


def test_starts_from_options_have_records():
    envs = letters_env(2, max_prompt_tokens=2)
    _, infos = envs.reset(options={"prompt": [{"prompt": "b", "x": 1}, Prompt("ab", {"x": 2})]})
    assert [dict(r) for r in infos["record"]] == [{"x": 1, "prompt": "b"}, {"x": 2, "prompt": "ab"}]
    _, infos = envs.reset(options={"tokens": [0, 1], "columns": {"x": 3}})
    assert dict(infos["record"][1]) == {"x": 3, "prompt": "ab"}


def test_a_record_that_cannot_be_saved_says_so():
    envs = letters_env(2, prompts=[{"prompt": "a", "what": {1, 2}}])
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    collector = Collector(policy, envs, seed=0)
    assert collector.collect_steps(3).records[0]["what"] == {1, 2}
    with pytest.raises(PromptError, match=r"the columns .* cannot be saved"):
        collector.state_dict()


# --- rollouts put together ------------------------------------------------------------------------


def two_rollouts():
    collector = collector_of(
        SCRIPT, num_envs=2, prompts=[{"prompt": "a", "n": n} for n in range(9)]
    )
    first = collector.collect_episodes(2)
    second = first.select(torch.tensor([0]))
    return first, second


def test_select_and_cat_keep_turns_records_and_extra():
    first, second = two_rollouts()
    assert second.turns.shape == (1, 6) and second.records == first.records[:1]
    first, second = (r.with_extra({"x": r.scores, "y": r.logprobs}) for r in (first, second))
    both = Rollout.cat([second, first])
    assert torch.equal(both.turns >= 0, both.mask)  # padded with -1
    assert both.turns[0, -1] == -1 and both.turns[1:].equal(first.turns)
    assert both.records == second.records + first.records
    assert both.extra["x"].tolist() == [first.scores[0], *first.scores]
    assert both.extra["y"].shape == both.mask.shape
    last = both.select(torch.tensor([2, 1]))
    assert last.extra["x"].tolist() == [first.scores[1], first.scores[0]]
    assert torch.equal(last.extra["y"], first.logprobs.flip(0)[:, : last.mask.shape[1]])
    assert both.to("cpu").records == both.records
    without = replace(first, extra=None, records=None)
    assert Rollout.cat([without, without]).extra is None
    assert Rollout.cat([replace(second, extra=None), without]).records is None
    with pytest.raises(ValueError, match=r"extra\.x"):
        Rollout.cat([first, without])


# --- what a hook adds -----------------------------------------------------------------------------


def learner_with(annotate, algorithm=None, **options):
    envs = letters_env(4, group_size=2)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8, seed=0)
    return Learner(policy, envs, algorithm or GRPO(), n_episodes=4, annotate=annotate, **options)


class Taught(GRPO):
    """Adds what a teacher says to the group's comparison."""

    def advantages(self, rollout):
        return super().advantages(rollout)[:, None] + rollout.extra["teacher"]


def test_a_hook_adds_arrays_before_the_advantages():
    seen = []

    def teacher(rollout):
        assert rollout.advantages is None and rollout.records is not None
        seen.append(rollout)
        return {"teacher": torch.where(rollout.mask, 3.0, 0.0), "length": rollout.mask.sum(1)}

    learned = learner_with(teacher, Taught()).update().rollout
    assert len(seen) == 1
    plain = GRPO().advantages(learned)[:, None]
    assert torch.equal(learned.advantages, plain + learned.extra["teacher"])
    assert learned.extra["length"].tolist() == learned.mask.sum(1).tolist()


def test_a_hook_may_return_another_rollout():
    def scores_of_steps(rollout):
        return replace(rollout, rewards=rollout.rewards + rollout.mask)

    rollout = learner_with(None).collect()
    trainer = Trainer(learner_with(None).policy, PPO(), annotate=scores_of_steps)
    learned, _ = trainer.learn_from(rollout)
    assert torch.equal(learned.rewards, rollout.rewards + rollout.mask)


def test_the_past_keeps_what_was_added():
    def number(rollout, count=[]):  # noqa: B006
        count.append(0)
        return {"number": torch.full((len(rollout),), float(len(count)))}

    learner = learner_with(number, OffPolicyGradient(replay=2), reference=None)
    learner.update()
    assert learner.update().rollout.extra["number"].tolist() == [1.0] * 4 + [2.0] * 4


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "annotate returned None; it must return a dict of tensors, or a Rollout"),
        ({"x": [1.0]}, r"the array 'x' is \[1.0\]; it must be a tensor of shape \(4,\), one"),
        ({"x": torch.ones(3)}, r"the array 'x' is shape \(3,\); it must be .* or \(4, 4\), one"),
    ],
)
def test_what_fits_no_rollout_is_refused(returned, message):
    with pytest.raises(AnnotationError, match=message):
        learner_with(lambda rollout: returned).update()


# --- the whole way --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm",
    [
        PPO(credit=returns.gae_by_turn, minibatch_tokens=8, gamma=0.9),
        PPO(credit=returns.gae_by_answer, n_epochs=2),
        GRPO(credit=returns.by_turn),
    ],
    ids=["by_turn", "by_answer", "grpo"],
)
def test_a_learner_takes_credit_by_turn(algorithm):
    envs = TextVectorEnv(4, group_size=2, **OPTIONS)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8, seed=0)
    learner = Learner(policy, envs, algorithm, n_episodes=8, seed=0)
    learned = learner.update().rollout
    # Every token of a turn has the turn's advantage.
    spread = learned.advantages if learned.advantages.dim() == 2 else learned.advantages[:, None]
    spread = spread.expand_as(learned.mask)
    for s, k in product(range(8), (1, 2)):
        assert len(spread[s, learned.turns[s] == k].unique()) == 1


def test_credit_by_turn_learns_from_cut_rollouts():
    envs = TextVectorEnv(4, **OPTIONS)
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8, seed=0)
    learner = Learner(policy, envs, PPO(credit="gae_by_turn"), n_steps=3, seed=0)
    cut = [learner.update().rollout.mid_turn.any().item() for _ in range(6)]
    assert any(cut)
