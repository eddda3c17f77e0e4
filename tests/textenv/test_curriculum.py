"""Prompt sources that are told what was scored: what they are told, and what becomes of it."""

import copy
import json
import pickle
from collections import Counter

import numpy as np
import pytest
from environments import vector
from hypothesis import given
from hypothesis import strategies as st

from textenv import ListPrompts, Prompt, Reply, TextEnv, TextVectorEnv, World
from textenv.curriculum import AdaptivePrompts, Curriculum, hard, learnable
from textenv.errors import CheckpointError, PromptError
from textenv.long_prompts import cut_long, drop_long
from textenv.rewards import dense, from_trl, weighted
from textenv.testing import check_text_env
from textenv.tokenizers import BytesTokenizer

STOP = BytesTokenizer().stop_token
NAMES = ["a", "b", "c", "d"]


class Notes:
    """Draws numbered prompts, and notes what it is told; its next prompt depends on that."""

    def __init__(self):
        self.told, self.asked = [], []

    def draw(self, seeds):
        self.asked.append(len(seeds))
        return [Prompt(f"{len(self.told)}>", {"k": 1}, number=len(self.told)) for _ in seeds]

    def scored(self, prompts, scores, groups):
        self.told += zip([p.text for p in prompts], scores.tolist(), groups.tolist(), strict=True)

    def state_dict(self):
        return {"told": [list(one) for one in self.told]}

    def load_state_dict(self, state):
        self.told = [tuple(one) for one in state["told"]]


class Paid:
    """A reward of these scores, one after the other."""

    def __init__(self, values):
        self.left = list(values)

    def __call__(self, episodes):
        return [self.left.pop(0) for _ in episodes]


def seeds(*numbers):
    return np.array(numbers, dtype=np.uint64)


def mixed(count, seed=0):
    return np.random.default_rng(seed).integers(2**64, size=count, dtype=np.uint64)


# ------------------------------------------------------------------ what a source is told


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_it_is_told_prompt_score_and_group_before_the_next_draw(mode):
    envs = vector(
        2,
        prompts=Notes(),
        max_prompt_tokens=4,
        reward=weighted(
            end=(2.0, Paid([1.0, 0.5, 3.0])), each=(1.0, dense(lambda b: [0.25] * len(b)))
        ),
        autoreset_mode=mode,
    )
    envs.reset(seed=0)
    source = envs.prompts
    first = [("0>", 2 * 1.0 + 0.25, 0), ("0>", 2 * 0.5 + 2 * 0.25, 1)]
    envs.step([STOP, 65])
    assert source.told == first[:1]
    if mode == "Disabled":
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.step([66, STOP])
    assert source.told == first
    if mode == "SameStep":  # row 0 began with the prompt drawn after the first news
        envs.step([STOP, 65])
        assert source.told == [*first, ("1>", 2 * 3.0 + 2 * 0.25, 2)]


def test_what_the_environment_did_not_draw_or_score_counts_nothing():
    def some(completions, **kwargs):
        return [None if c == "x" else 1.0 for c in completions]

    envs = vector(2, prompts=Notes(), reward=from_trl(some), max_prompt_tokens=4)
    envs.reset(seed=0)
    source = envs.prompts
    envs.step([ord("x"), ord("y")])
    envs.step([STOP, STOP])  # "x" has no score
    assert source.told == [("0>", 1.0, 1)]
    envs.reset(options={"prompt": "own"})
    envs.step([STOP, STOP])
    assert source.told == [("0>", 1.0, 1)]
    envs.step([ord("y"), ord("y")])
    envs.reset()  # cut in the middle
    assert source.told == [("0>", 1.0, 1)]


class Sums(World):
    def begin(self, record, rng):
        return record["prompt"] + "?"

    def reply(self, turn, rng):
        if turn.text == "!":
            raise ValueError("no")
        return Reply("ok", reward=0.5)


def test_of_a_conversation_it_is_told_what_the_world_paid_too():
    envs = TextVectorEnv(
        2,
        prompts=Notes(),
        world=Sums,
        reward=Paid([9.0, 1.0]),
        max_turn_tokens=1,
        max_turns=2,
        max_prompt_tokens=4,
    )
    envs.reset(seed=0)
    source = envs.prompts
    envs.step([ord("a"), ord("!")])  # the world of row 1 fails: the score is none of the policy's
    assert source.told == []
    envs.step([ord("a"), ord("a")])
    assert source.told == [("0>?", 0.5 + 0.5 + 1.0, 0)]


def test_the_answers_of_a_group_have_one_prompt_whatever_is_told_between():
    envs = vector(4, prompts=Notes(), group_size=4, max_prompt_tokens=4, reward=Paid([0.0] * 99))
    envs.reset(seed=0)
    source = envs.prompts
    starts = Counter()
    # Rows of different lengths: groups begin and end one row at a time.
    for step in range(40):
        actions = [STOP if step % (row + 1) == row else 65 for row in range(4)]
        *_, infos = envs.step(actions)
        for row in np.flatnonzero(infos.get("_prompt", [])):
            starts[infos["prompt"][row]] += 1
    by_group = {}
    for text, _, group in source.told:
        by_group.setdefault(group, set()).add(text)
    assert len(by_group) > 8 and all(len(texts) == 1 for texts in by_group.values())
    assert len({next(iter(texts)) for texts in by_group.values()}) > 4  # and the news did tell
    assert set(source.asked) == {1}  # one draw, one question


def test_a_source_that_fails_is_named():
    class Broken(Notes):
        def scored(self, prompts, scores, groups):
            raise KeyError("level")

    envs = vector(1, prompts=Broken(), max_prompt_tokens=4)
    envs.reset(seed=0)
    with pytest.raises(PromptError, match=r"Broken.scored raised KeyError: 'level'; in .*raise"):
        envs.step([STOP])

    class Short(Notes):
        def draw(self, seeds):
            return []

    with pytest.raises(PromptError, match=r"Short.draw gave 0 prompts for 1 seeds"):
        vector(1, prompts=Short(), max_prompt_tokens=4).reset()


def test_a_source_without_a_state_is_refused_at_once():
    class Forgets:
        def draw(self, seeds):
            return [Prompt("a")] * len(seeds)

        def scored(self, prompts, scores, groups):
            pass

    with pytest.raises(PromptError, match=r"Forgets is told .* give it state_dict\(\)"):
        vector(1, prompts=Forgets(), max_prompt_tokens=4)


# ------------------------------------------------------------------ state


def play(envs, steps, seed=3):
    """Prompts of the episodes that begin."""
    rng, begun = np.random.default_rng(seed), []
    for _ in range(steps):
        *_, infos = envs.step(np.where(rng.random(envs.num_envs) < 0.4, STOP, 97))
        told = infos.get("_prompt", np.zeros(envs.num_envs, dtype=bool))
        begun += infos["prompt"][told].tolist() if told.any() else []
    return begun


def by_name(episodes):
    """Solved prompts are "a" and "b"."""
    return [float(e.prompt in "ab") for e in episodes]


def learning_env(**arguments):
    source = Curriculum(NAMES, hard, uniform=0.1)
    return vector(4, prompts=source, reward=by_name, group_size=2, **arguments)


def test_a_saved_source_goes_on_bit_for_bit():
    envs = learning_env()
    envs.reset(seed=1)
    play(envs, 30)
    state = copy.deepcopy(envs.state_dict())
    after = play(envs, 60)
    other = learning_env()
    other.reset(seed=9)
    play(other, 5)
    other.load_state_dict(state)
    assert play(other, 60) == after
    assert other.prompts.success.tolist() == envs.prompts.success.tolist()
    assert len(set(after)) > 1


def test_states_of_other_prompts_and_sources_are_refused():
    state = learning_env().state_dict()
    for prompts, message in ((["a"], "other prompts"), (NAMES[::-1], "another order")):
        envs = vector(4, prompts=Curriculum(prompts), reward=by_name, group_size=2)
        with pytest.raises(CheckpointError, match=message):
            envs.load_state_dict(state)
    plain = vector(4, prompts=NAMES, reward=by_name, group_size=2)
    with pytest.raises(CheckpointError, match="the saved environment tells its prompts"):
        plain.load_state_dict(state)
    with pytest.raises(CheckpointError, match="this environment tells its prompts"):
        learning_env().load_state_dict(plain.state_dict())


def test_a_seed_for_every_row_begins_anew():
    envs = learning_env()
    first = [envs.reset(seed=1), play(envs, 40)][1]
    assert envs.prompts.counts.sum() > 10
    assert [envs.reset(seed=1), play(envs, 40)][1] == first
    counts = envs.prompts.counts.copy()
    envs.reset(seed=5, options={"reset_mask": np.array([True, True, False, False])})
    envs.reset()
    assert (envs.prompts.counts == counts).all()  # the others are in the middle of it


def test_copies_go_on_alike_and_apart():
    envs = learning_env()
    envs.reset(seed=1)
    play(envs, 20)
    for other in (copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))):
        before = envs.prompts.counts.copy()
        after = play(other, 40, seed=4)
        assert (envs.prompts.counts == before).all()  # what the copy is told is its own
        state = copy.deepcopy(envs.state_dict())
        assert play(envs, 40, seed=4) == after
        envs.load_state_dict(state)


def test_it_passes_the_check_of_environments():
    check_text_env(lambda: TextEnv(prompts=Curriculum(NAMES), reward=by_name, max_new_tokens=4))


def test_single_environments_tell_too():
    env = TextEnv(prompts=Curriculum(NAMES), reward=by_name, max_new_tokens=4)
    env.reset(seed=0)
    env.step(STOP)
    assert env.prompts.counts.sum() == 1


# ------------------------------------------------------------------ around such a source


def test_lists_that_are_cut_or_dropped_stay_curricula():
    source = Curriculum(["x", "longer", "y"], hard, full_score=2.0, memory=5, uniform=0.2)
    cut, dropped = (change(source, BytesTokenizer(), 2) for change in (cut_long, drop_long))
    assert [p.text for p in cut.prompts] == ["x", "er", "y"]
    assert [p.text for p in dropped.prompts] == ["x", "y"]
    for made in (cut, dropped):
        assert isinstance(made, Curriculum)
        assert (made.weight, made.full_score, made.memory, made.uniform) == (hard, 2.0, 5, 0.2)


@pytest.mark.parametrize("change", [cut_long, drop_long])
def test_wrappers_pass_the_news_and_the_state_on(change):
    around = change(Notes(), BytesTokenizer(), 2)
    assert isinstance(around, AdaptivePrompts)
    envs = vector(1, prompts=around, reward=Paid([0.5, 1.0]), max_prompt_tokens=2)
    envs.reset(seed=0)
    envs.step([STOP])
    assert envs.prompts.source.told == [("0>", 0.5, 0)]
    assert envs.state_dict()["streams"]["source"] == {"told": [["0>", 0.5, 0]]}
    for other in (copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))):
        assert other.prompts.state_dict() == envs.prompts.state_dict()
    assert around.state_dict() == {"told": []}  # the environment has a copy
    plain = change(lambda rng: "p", BytesTokenizer(), 2)
    assert not hasattr(plain, "scored")
    pickle.loads(pickle.dumps(change(ListPrompts(["p"]), BytesTokenizer(), 2)))


# ------------------------------------------------------------------ the curriculum itself


def told(source, number, *scores):
    prompt = source.prompts[number].numbered(number)
    for score in scores:
        source.scored([prompt], np.array([score]), np.array([0]))


def test_successes_by_hand():
    source = Curriculum(NAMES, full_score=2.0, memory=4)
    told(source, 0, 2.0, 2.0, 0.0)
    told(source, 1, 1.0, 7.0, -3.0)  # shares of 1/2, 1 and 0
    told(source, 2, 0.0, 0.0, 0.0, 0.0)
    # One half and the scores, averaged; the fourth moves it by a quarter, as the third.
    assert source.success.tolist() == pytest.approx(
        [(0.5 + 1 + 1 + 0) / 4, (0.5 + 0.5 + 1 + 0) / 4, 0.5 / 4 * 3 / 4, 0.5]
    )
    assert source.counts.tolist() == [3, 3, 4, 0]


def test_draws_follow_the_probabilities():
    source = Curriculum(NAMES, learnable, memory=100, uniform=0.2)
    told(source, 0, *[1.0] * 40)
    told(source, 1, *[0.0] * 40)
    told(source, 2, *[0.0, 1.0] * 20)
    p = source.success
    weights = p * (1 - p)
    expected = 0.8 * weights / weights.sum() + 0.2 / 4
    np.testing.assert_allclose(source.probabilities, expected)
    assert expected[0] < 0.07 and expected[1] < 0.07  # always or never solved: seldom
    draws = 40_000
    counts = Counter(prompt.text for prompt in source.draw(mixed(draws)))
    chi_squared = sum(
        (counts[n] - draws * q) ** 2 / (draws * q) for n, q in zip(NAMES, expected, strict=True)
    )
    assert chi_squared < 16.3  # 0.999 quantile with 3 degrees of freedom


def test_a_draw_depends_on_seed_and_state_alone():
    one, other = Curriculum(NAMES), Curriculum(NAMES)
    for source in (one, other):
        told(source, 1, 0.0, 0.0)
    numbers = mixed(50)
    assert [p.text for p in one.draw(numbers)] == [p.text for p in other.draw(numbers)]
    assert [p.text for p in one.draw(numbers[::-1])] == [p.text for p in one.draw(numbers)][::-1]
    assert [p.number for p in one.draw(numbers)] == [NAMES.index(p.text) for p in one.draw(numbers)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(0, 2**64 - 1))
def test_what_has_no_weight_is_never_drawn(weights, seed):
    source = Curriculum([str(i) for i in range(len(weights))], uniform=0.0)
    source.weight = lambda success: np.array(weights)
    source._bounds = source._new_bounds()
    drawn = [p.number for p in source.draw(seeds(seed, 0, 2**64 - 1))]
    if any(weights):
        assert all(source.probabilities[number] > 0 for number in drawn)


def test_hard_prompts_come_again():
    """A policy that solves "a" and "b" and never "c" and "d" sees those nine times of ten."""
    envs = learning_env()
    envs.reset(seed=0)
    play(envs, 200)
    counts = Counter(play(envs, 400))
    total = sum(counts.values())
    assert (counts["c"] + counts["d"]) / total > 0.85
    assert min(counts.values()) > 0


def test_a_file_may_be_a_curriculum(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "2+2=", "answer": "4"}))
    (prompt,) = Curriculum(path).draw(seeds(5))
    assert (prompt.columns, prompt.number) == ({"answer": "4"}, 0)
    assert Prompt.from_json(prompt.to_json()).number == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": lambda rng: "a"}, "makes up its prompts"),
        ({"full_score": 0}, "full_score is 0"),
        ({"memory": 1}, "memory 1"),
        ({"uniform": 1.5}, "uniform 1.5"),
        ({"weight": lambda p: p[:1]}, "must be 4 finite numbers"),
        ({"weight": lambda p: p - 1}, "none of them negative"),
        ({"weight": lambda p: p * np.nan}, "finite"),
    ],
)
def test_what_makes_no_curriculum(arguments, message):
    with pytest.raises(PromptError, match=message):
        Curriculum(**{"prompts": NAMES, **arguments})


def test_prompts_of_somebody_else_are_refused():
    with pytest.raises(PromptError, match="'z' is no prompt of this curriculum"):
        Curriculum(NAMES).scored([Prompt("z")], np.array([1.0]), np.array([0]))
