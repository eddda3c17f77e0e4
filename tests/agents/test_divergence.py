"""A loss or a gradient that is not finite reaches no weight, and what was learned is saved."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from letters import Letters
from toys import letters_env

from agents import DPO, PPO, RLOO, TRPO, Learner, Rollout, Trainer
from agents.algorithms.names import ALGORITHMS
from agents.feedback import Ranking
from agents.feedback.reward_modelling import reward_model_steps
from agents.optimisation import precision as precisions
from agents.optimisation.precision import Precision
from agents.supervised import Example, pretraining_steps, sft_steps
from policies import RewardModel, TransformerConfig, TransformerPolicy
from textenv.errors import DivergedError

torch.set_num_threads(1)
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16}
TEXT = np.arange(300) % 5


def policy_for(envs) -> TransformerPolicy:
    policy = TransformerPolicy.for_env(envs, **SHAPE)
    with torch.no_grad():
        policy.transformer.token_embedding.weight.mul_(5)
    return policy


def learner_of(cls, **options) -> Learner:
    envs = letters_env(8, 6, group_size=4)
    policy = policy_for(envs)
    fields = {"stream": TEXT, "ptx_window": 3} if cls.__name__ == "PPOPtx" else {}
    return Learner(
        policy, envs, cls(**fields), reference=policy.frozen_copy(), n_episodes=8, **options
    )


def infinite(loss):
    return loss * math.inf


def without_gradient(loss):
    """The same number; the root of 0 has the slope inf, and 0 times it is NaN."""
    return loss + (0 * loss).abs().sqrt()


def too_steep(loss):
    """The same number, with a gradient whose square float32 cannot hold."""
    return loss + 1e30 * (loss - loss.detach())


WRONG = [infinite, without_gradient, too_steep]


def goes_wrong(monkeypatch, cls, wrong, call):
    """From the call of that number on, the losses of `cls` are wrong."""
    calls, right = [], cls.loss

    def loss(self, *args, **more):
        calls.append(1)
        given = right(self, *args, **more)
        value, *reported = given if isinstance(given, tuple) else (given,)
        value = wrong(value) if len(calls) >= call else value
        return (value, *reported) if reported else value

    monkeypatch.setattr(cls, "loss", loss)


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


def are_equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- the algorithms -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_algorithm_takes_the_step(name, wrong, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cls = ALGORITHMS[name]
    learner = learner_of(cls)
    goes_wrong(monkeypatch, cls, wrong, call=1)
    before = weights_of(learner.policy)
    with pytest.raises(DivergedError, match=r"is (-?inf|nan), so no step was taken"):
        list(learner.updates(1_000))
    assert are_equal(before, weights_of(learner.policy))


def test_the_learner_is_saved_as_it_was_before_the_rollout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    goes_wrong(monkeypatch, PPO, infinite, call=10)  # 4 epochs of one minibatch
    learner = learner_of(PPO)
    with pytest.raises(DivergedError) as caught:
        list(learner.updates(10_000))
    assert learner.updates_done == 2
    (folder,) = Path("runs").iterdir()
    (note,) = caught.value.__notes__
    assert f"learner.load({str(folder)!r})" in note
    monkeypatch.undo()
    resumed = learner_of(PPO)
    resumed.load(tmp_path / folder)
    assert resumed.updates_done == 2
    assert are_equal(weights_of(learner.policy), weights_of(resumed.policy))
    assert next(resumed.updates(10_000)).number == 3


def test_any_error_saves_what_was_learned(monkeypatch, tmp_path):
    """Not the reward's alone, and not only those of this library."""
    monkeypatch.chdir(tmp_path)
    learner = learner_of(RLOO)
    learner.resume_command = "start again"
    list(islice(learner.updates(10_000), 2))
    monkeypatch.setattr(learner.envs, "step", lambda actions: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        list(learner.updates(10_000))
    (folder,) = Path("runs").iterdir()
    assert caught.value.__notes__ == [f"The learner was saved in {folder}: start again"]
    learner.rescue(caught.value)  # once is enough
    assert len(caught.value.__notes__) == 1


def test_a_folder_that_cannot_be_written_does_not_hide_the_error(monkeypatch, tmp_path):
    learner = learner_of(RLOO)
    list(islice(learner.updates(10_000), 1))
    (tmp_path / "file").write_text("in the way")
    learner.rescue_folder = tmp_path / "file"
    monkeypatch.setattr(learner.envs, "step", lambda actions: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        list(learner.updates(10_000))
    assert "Nothing could be saved in" in caught.value.__notes__[0]


def test_preferences_from_a_file(monkeypatch):
    policy = TransformerPolicy(TransformerConfig(5, 8, **SHAPE))
    tokens, mask = torch.tensor([[0, 1, 2], [0, 3, 4]]), torch.tensor([[False, True, True]] * 2)
    log = Rollout.from_log(tokens, mask, torch.tensor([1.0, 0.0]), torch.zeros(2).long())
    trainer = Trainer(policy, DPO(beta=1e30), reference=policy.frozen_copy())
    before = weights_of(policy)
    with pytest.raises(DivergedError, match="norm of the gradient is inf"):
        trainer.learn_from(log)
    assert are_equal(before, weights_of(policy))


# --- TRPO, whose weights move while it looks for its step -----------------------------------------


@pytest.mark.parametrize("error", [DivergedError("x"), KeyboardInterrupt(), RuntimeError("memory")])
@pytest.mark.parametrize("call", [2, 6])
def test_an_interrupted_trial_of_trpo_is_taken_back(error, call, monkeypatch):
    learner = learner_of(TRPO)
    before, calls, outputs = weights_of(learner.policy), [], learner.outputs

    def interrupted(*args):
        calls.append(1)
        if len(calls) == call + 1:  # the first is that of the reference
            raise error
        return outputs(*args)

    monkeypatch.setattr(learner, "outputs", interrupted)
    with pytest.raises(type(error)):
        learner.update()
    assert are_equal(before, weights_of(learner.policy))


# --- supervised training --------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["pretraining", "sft", "reward model"])
def test_no_fit_takes_the_step(kind, wrong, monkeypatch):
    policy = TransformerPolicy(TransformerConfig(6, 8, **SHAPE), tokenizer=Letters(5, stop=True))
    model = policy
    if kind == "pretraining":
        monkeypatch.setattr(
            "agents.supervised.pretraining.next_token_loss",
            lambda policy, windows: wrong(policy.logits(policy.read(torch.ones(1, 1))).mean()),
        )
        steps = pretraining_steps(policy, TEXT, total_tokens=50, window=4, batch_size=2)
    elif kind == "sft":
        steps = sft_steps(
            policy,
            [Example((("a", False), ("b", True)))],
            loss=lambda policy, *_: wrong(policy.logits(policy.read(torch.ones(1, 1))).mean()),
        )
    else:
        model = RewardModel(policy)
        steps = reward_model_steps(
            model, [Ranking("a", ("b", "c"), (1, 2))], loss=lambda scores, *_: wrong(scores.sum())
        )
    before = weights_of(model)
    with pytest.raises(DivergedError):
        next(steps)
    assert are_equal(before, weights_of(model))


# --- float16 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [infinite, without_gradient])
def test_steps_in_float16_are_skipped_until_the_scale_is_not_to_blame(wrong):
    weight = torch.nn.Parameter(torch.ones(1))
    precision = Precision(torch.float16, "cpu")
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with pytest.raises(DivergedError):
        for _ in range(100):
            optimizer.zero_grad()
            precision.backward(wrong(weight.sum()))
            precision.step(optimizer, [weight], max_norm=1.0)
    assert precision.scaler.get_scale() == precisions.SMALLEST_SCALE / 2
    assert weight.item() == 1.0


# --- far from the policy that sampled -------------------------------------------------------------


def test_a_policy_that_is_100_nats_away_ends_the_epochs():
    learner = learner_of(PPO)
    learner.algorithm = PPO(target_kl=0.1, n_epochs=4, minibatch_tokens=None)
    rollout = learner.collect()
    far = Rollout(**(rollout.arrays() | {"logprobs": rollout.logprobs - 100}))
    before = learner.optimizer.state_dict()["state"]
    _, metrics = learner.learn_from(far)
    assert not before
    (state, *_) = learner.optimizer.state_dict()["state"].values()
    assert state["step"] == 1  # of 4 epochs
    assert math.isfinite(metrics["approx_kl"]) and metrics["approx_kl"] > 1e6
    assert math.isfinite(metrics["grad_norm"])
