"""A learner that was saved goes on as if nothing had happened."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from letters import Letters

from agents import PPO, AdaptiveKL, Learner, OffPolicyGradient
from agents.runs.checkpoints import MANIFEST, Checkpoints, seal
from agents.runs.learner_checkpoint import save_learner
from agents.runs.state_files import _put_arrays, _take_arrays
from policies import TransformerPolicy
from textenv import ListPrompts
from textenv.curriculum import Curriculum
from textenv.errors import (
    CheckpointError,
    DamagedCheckpointWarning,
    NotSavedWarning,
    RewardCountError,
    RewardRaisedError,
    RewardValueError,
    VocabularyMismatchError,
)
from textenv.rewards import dense
from textenv.vector import TextVectorEnv

torch.set_num_threads(1)
PROMPTS = ["a", "bcd", "dd", {"prompt": "ab", "answer": "x"}]
GROUPS_AND_MASKS = {"group_size": 4, "min_new_tokens": 2, "forbidden_tokens": [3]}


def share_of_a(episodes):
    return [float((e.tokens == 0).mean()) for e in episodes]


def make_learner(env_options=None, algorithm=None, **options):
    """A new learner in a new environment; the same whenever it is called."""
    env_options = {"num_envs": 8, "reward": share_of_a, "letters": 6} | (env_options or {})
    envs = TextVectorEnv(
        prompts=(env_options.pop("source", ListPrompts))(PROMPTS),
        max_new_tokens=7,
        tokenizer=Letters(env_options.pop("letters"), stop=True),
        **env_options,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=2, n_embd=16)
    defaults = {
        "reference": policy.frozen_copy(),
        "kl_coef": AdaptiveKL(initial=0.1, target=0.01, horizon=50),
        "learning_rate": lambda done: 3e-3 * (1 - done),
        "temperature": 0.9,
        "seed": 5,
    }
    algorithm = algorithm or PPO(n_epochs=2, minibatch_tokens=20)
    return Learner(policy, envs, algorithm, **(defaults | options))


TOTAL = 100_000


def run(learner, updates):
    """What `updates` more updates report, and the rollouts' tokens; times are left out."""
    reports = []
    for update in islice(learner.updates(TOTAL), updates):
        metrics = {k: v for k, v in update.metrics.items() if not k.endswith("_seconds")}
        numbers = (update.number, update.tokens, update.episodes, update.score, update.kl)
        reports.append((numbers, update.entropy, metrics, update.rollout.tokens.tolist()))
    return reports


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.policy.parameters()])


def assert_same_state(one, other):
    """Weights, moments, counters, generators, environment, running episodes."""
    assert torch.equal(weights(one), weights(other))
    states = []
    for learner in (one, other):
        arrays = {}
        state = {"o": learner.optimizer.state_dict(), "r": learner.runtime_state()}
        plain = _take_arrays(state, "", arrays)
        states.append((json.loads(json.dumps(plain)), arrays))
    (plain, arrays), (other_plain, other_arrays) = states
    assert plain == other_plain
    assert arrays.keys() == other_arrays.keys()
    for path, array in arrays.items():
        assert torch.equal(array, other_arrays[path]), path


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env_options",
    [
        {"reward": dense(lambda batch: 0.1 * (batch.actions == 0))},
        GROUPS_AND_MASKS,
        {"autoreset_mode": "NextStep"},
        {"budget": "truncate"},
        {"source": Curriculum, "group_size": 4},
    ],
    ids=["dense", "groups and masks", "next step", "truncate", "curriculum"],
)
@pytest.mark.parametrize("length", [{"n_steps": 10}, {"n_episodes": 12}], ids=["steps", "episodes"])
def test_a_resumed_run_continues_bit_for_bit(tmp_path, length, env_options):
    whole = make_learner(env_options, **length)
    expected = run(whole, 5)
    first = make_learner(env_options, **length)
    assert run(first, 2) == expected[:2]
    # Episodes are running, so there is something to lose.
    assert first.collector._open["mask"].any() or first.collector._prompt_lengths.max() > 0
    first.save(tmp_path)
    resumed = make_learner(env_options, **length)
    resumed.load(tmp_path)
    assert_same_state(first, resumed)
    assert run(resumed, 3) == expected[2:]
    assert_same_state(whole, resumed)


def test_rollouts_of_the_past_are_resumed_too(tmp_path):
    options = {
        "env_options": GROUPS_AND_MASKS,
        "algorithm": OffPolicyGradient(replay=3),
        "n_episodes": 8,
    }
    whole = make_learner(**options)
    expected = run(whole, 4)
    first, second = make_learner(**options), make_learner(**options)
    assert run(first, 2) == expected[:2]
    first.save(tmp_path)
    second.load(tmp_path)
    assert [len(rollout) for rollout in second.replay] == [8, 8]
    assert run(second, 2) == expected[2:]


@pytest.mark.parametrize("length", [{"n_steps": 10}, {"n_episodes": 12}], ids=["steps", "episodes"])
def test_a_checkpoint_from_before_endings_were_recorded_is_resumed(tmp_path, length):
    whole, resumed = (make_learner(GROUPS_AND_MASKS, **length) for _ in range(2))
    run(whole, 3)
    state = whole.runtime_state()
    assert state["collector"].pop("answer_tokens").any()
    assert bool(state["collector"]["closed"]) == ("n_episodes" in length)  # there is one to mend
    for episode in state["collector"]["closed"]:
        del episode["endings"]
    save_learner(whole, tmp_path, state)
    resumed.load(tmp_path)
    assert run(resumed, 3) == run(whole, 3)


def test_saving_changes_nothing(tmp_path):
    disturbed, plain = make_learner(n_steps=10), make_learner(n_steps=10)
    expected = run(plain, 3)
    assert run(disturbed, 1) == expected[:1]
    disturbed.save(tmp_path)
    assert run(disturbed, 2) == expected[1:]


def test_a_learner_can_be_loaded_twice_and_saved_again(tmp_path):
    learner = make_learner(n_steps=10)
    run(learner, 2)
    learner.save(tmp_path / "one")
    expected = run(learner, 2)
    learner.load(tmp_path / "one")  # back in time, in place
    assert run(learner, 2) == expected
    learner.load(tmp_path / "one")
    learner.save(tmp_path / "two")
    again = make_learner(n_steps=10)
    again.load(tmp_path / "two")
    assert run(again, 2) == expected


def test_from_a_damaged_checkpoint_a_run_goes_on_with_the_one_before(tmp_path):
    learner, checkpoints = make_learner(n_steps=10), Checkpoints(tmp_path / "run", keep=2)
    expected = []
    for _ in range(2):
        expected = run(learner, 1)
        save_learner(learner, checkpoints)
    (checkpoints.folder / "learner.safetensors").write_bytes(b"")
    resumed = make_learner(n_steps=10)
    with pytest.warns(DamagedCheckpointWarning, match=r"learner\.safetensors has 0 bytes"):
        resumed.load(checkpoints.folder)
    assert run(resumed, 1) == expected


def test_a_learner_that_cannot_be_saved_leaves_the_last_one_as_it_was(tmp_path, monkeypatch):
    learner, checkpoints = make_learner(n_steps=10), Checkpoints(tmp_path / "run")
    run(learner, 1)
    save_learner(learner, checkpoints)
    learner.rescue_folder = checkpoints

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "commit", full)
    error = KeyboardInterrupt()
    learner.rescue(error)
    (note,) = error.__notes__
    assert f"The policy was saved in {tmp_path / 'run.policy'}" in note and "No space" in note
    learner.policy.load_weights(tmp_path / "run.policy")
    assert checkpoints.newest() == tmp_path / "run"
    assert not (tmp_path / "run" / "policy.json").exists()


def test_what_a_checkpoint_holds(tmp_path):
    """Safetensors and JSON, no pickles."""
    learner = make_learner(n_steps=10)
    run(learner, 1)
    folder = learner.save(tmp_path / "deep" / "run")
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == [
        "learner.json",
        "learner.safetensors",
        "manifest.json",
        "policy/policy.json",
        "policy/policy.safetensors",
        "reference/policy.json",
        "reference/policy.safetensors",
    ]
    json.loads((folder / "learner.json").read_text())


def test_nested_state_survives():
    state = {
        0: {"step": torch.tensor(3.0), "flags": np.array([True, False])},
        "keys": np.array([2**64 - 1, 0], dtype=np.uint64),
        "nothing": None,
        "lists": [1, 2.5, [], {}, "text", np.zeros((0, 3))],
        "large": 2**100,
        "nan": float("nan"),
    }
    arrays = {}
    plain = json.loads(json.dumps(_take_arrays(state, "", arrays)))
    back = _put_arrays(plain, arrays)
    assert back[0]["step"].item() == 3.0
    assert back[0]["flags"].tolist() == [True, False]
    assert back["keys"].dtype == np.uint64 and back["keys"].tolist() == [2**64 - 1, 0]
    assert back["nothing"] is None and np.isnan(back["nan"]) and back["large"] == 2**100
    *plain_items, empty = back["lists"]
    assert plain_items == [1, 2.5, [], {}, "text"]
    assert empty.shape == (0, 3)


# --- when a reward fails --------------------------------------------------------------------------


class Broken:
    """`share_of_a`, which fails once it has scored 30 episodes."""

    def __init__(self, fail):
        self.fail = fail
        self.scored = 0

    def __call__(self, episodes):
        self.scored += len(episodes)
        scores = share_of_a(episodes)
        return scores if self.scored <= 30 else self.fail(scores)


def raises(scores):
    raise ConnectionError("the judge does not answer")


def interrupts(scores):
    raise KeyboardInterrupt


def is_nan(scores):
    return [float("nan"), *scores[1:]]


def is_short(scores):
    return scores[1:]


@pytest.mark.parametrize("env_options", [{}, GROUPS_AND_MASKS], ids=["plain", "groups and masks"])
@pytest.mark.parametrize("length", [{"n_steps": 10}, {"n_episodes": 12}], ids=["steps", "episodes"])
@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (raises, RewardRaisedError),
        (is_nan, RewardValueError),
        (is_short, RewardCountError),
        (interrupts, KeyboardInterrupt),
    ],
)
def test_the_learner_is_saved_when_its_reward_fails(
    tmp_path, monkeypatch, fail, error, length, env_options
):
    monkeypatch.chdir(tmp_path)
    expected = run(make_learner(env_options, **length), 4)
    learner = make_learner(env_options | {"reward": Broken(fail)}, **length)
    with pytest.raises(error) as caught:
        run(learner, 4)
    done = learner.updates_done
    assert done > 0  # it failed in the middle of the run
    (folder,) = Path("runs").iterdir()
    (note,) = caught.value.__notes__
    assert f"saved in {folder}: " in note and f"learner.load({str(folder)!r})" in note
    # The reward is mended, and the learner made again.
    resumed = make_learner(env_options, **length)
    resumed.load(folder)
    assert resumed.updates_done == done
    assert run(resumed, 4 - done) == expected[done:]


def test_an_error_of_another_kind_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learner = make_learner(n_steps=10)
    monkeypatch.setattr(learner.envs, "step", lambda actions: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(learner, 1)
    assert not Path("runs").exists()


# --- what cannot be loaded ------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    learner = make_learner(n_steps=10)
    run(learner, 1)
    return learner.save(tmp_path / "saved")


def test_a_missing_learner(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"nowhere holds no learner .*: there is no folder .*nowhere"
    ):
        make_learner(n_steps=10).load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["learner.json", "learner.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"dict": []}', b"\xff nonsense", None])
def test_a_damaged_learner(saved, name, content):
    path = saved / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(CheckpointError, match=str(saved)):
        make_learner(n_steps=10).load(saved)


def test_a_learner_without_its_policy(saved):
    (saved / "policy" / "policy.json").unlink()
    with pytest.raises(CheckpointError, match=r"policy/policy\.json is missing"):
        make_learner(n_steps=10).load(saved)
    (saved / MANIFEST).unlink()  # as of an earlier version
    with pytest.raises(CheckpointError, match="holds no policy"):
        make_learner(n_steps=10).load(saved)


@pytest.mark.parametrize(
    "env_options", [{"num_envs": 4}, {"max_prompt_tokens": 9}], ids=["rows", "length"]
)
def test_a_learner_made_with_other_arguments(saved, env_options):
    with pytest.raises(CheckpointError, match=str(saved)):
        make_learner(env_options, n_steps=10).load(saved)


def test_a_learner_with_another_kind_of_kl(saved):
    with pytest.raises(CheckpointError, match="was made with other arguments"):
        make_learner(n_steps=10, kl_coef=0.1).load(saved)


def test_a_learner_of_a_version_that_saved_less(saved):
    learner = make_learner(n_steps=10)
    state = learner.runtime_state()
    del state["collector"]["masks"]
    save_learner(learner, saved, state)
    with pytest.raises(CheckpointError, match="by another version: its state lacks 'masks'"):
        make_learner(n_steps=10).load(saved)


def test_a_learner_with_another_optimiser(saved):
    with pytest.raises(CheckpointError, match="was made with other arguments"):
        make_learner(n_steps=10, optimizer=torch.optim.SGD).load(saved)


def test_a_format_of_the_future(saved):
    state = json.loads((saved / "learner.json").read_text())
    state["dict"] = [[k, 99 if k == "format" else v] for k, v in state["dict"]]
    (saved / "learner.json").write_text(json.dumps(state))
    seal(saved)
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        make_learner(n_steps=10).load(saved)


def test_a_learner_of_another_vocabulary(saved):
    with pytest.raises(VocabularyMismatchError):
        make_learner({"letters": 7}, n_steps=10).load(saved)


def test_columns_that_json_cannot_hold_do_not_stop_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fail = []

    def reward(episodes):
        return [float("nan") if fail else 0.0 for _ in episodes]

    envs = TextVectorEnv(
        2, prompts=[{"prompt": "a", "checker": len}], reward=reward, max_new_tokens=2
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=4)
    learner = Learner(policy, envs, PPO(), n_steps=2)
    updates = learner.updates(1_000)
    with pytest.warns(NotSavedWarning, match="checker"):
        assert next(updates).tokens == 4
    fail.append(True)
    with pytest.raises(RewardValueError) as caught:
        next(updates)
    assert "the whole learner cannot be" in caught.value.__notes__[0]
    (folder,) = (tmp_path / "runs").iterdir()
    assert TransformerPolicy.load(folder).config == policy.config
