"""Minibatches that are scored in parts: the same gradient, less memory."""

import copy
import weakref
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from letters import Letters
from torch.utils._python_dispatch import TorchDispatchMode

from agents import PPO, Collector, Learner, Rollout, Trainer, algorithms
from agents.optimisation.micro_batches import parts_of
from policies import TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv

torch.set_num_threads(1)
STREAM = np.arange(200) % 4
PROMPTS = ["a", "bca", "cd", "dabc"]
SIZE = 24


def make_policy(seed, n_layer=2, context=12):
    policy = TransformerPolicy(TransformerConfig(5, context, n_layer, 2, 16), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def make_envs():
    """Answers of 1 to 6 tokens in groups of 3."""
    return TextVectorEnv(
        6,
        prompts=PROMPTS,
        reward=lambda episodes: [float(np.mean(e.tokens % 2)) for e in episodes],
        tokenizer=Letters(4, stop=True),
        max_new_tokens=6,
        group_size=3,
    )


POLICY, REFERENCE = make_policy(1), make_policy(2)
# Of a third policy, so that ratios differ from 1.
ROLLOUT = Collector(make_policy(3), make_envs(), seed=4).collect_episodes(24)


def algorithm(name):
    options = {"stream": STREAM, "ptx_window": 8, "ptx_batch": 5} if name == "PPOPtx" else {}
    return getattr(algorithms, name)(**options)


def trained(name, size, *, rollout=ROLLOUT, epochs=2, **options):
    """Weights and metrics after two epochs of two minibatches, and the sequences of each pass."""
    policy, passes = copy.deepcopy(POLICY), []
    policy.transformer.recompute = options.pop("recompute", False)
    read = policy.hidden_before
    policy.hidden_before = lambda tokens, *a, **b: (
        passes.append((torch.is_grad_enabled(), len(tokens))) or read(tokens, *a, **b)
    )
    trainer = Trainer(
        policy,
        replace(algorithm(name), n_epochs=epochs, minibatch_tokens=rollout.num_tokens // 2),
        reference=REFERENCE,
        learning_rate=0.005,  # at 0.05 the squared loss of IPO diverges
        max_grad_norm=1e9,
        micro_batch_tokens=size,
        optimizer=torch.optim.SGD,
        **options,
    )
    _, metrics = trainer.learn_from(rollout)
    metrics.pop("update_encoded_tokens")  # beginnings that two parts share are read twice
    return torch.nn.utils.parameters_to_vector(policy.parameters()).detach(), metrics, passes


@pytest.mark.parametrize("name", algorithms.__all__)
def test_weights_are_those_of_the_undivided_minibatch(name):
    whole, expected, of_whole = trained(name, None)
    weights, metrics, passes = trained(name, SIZE)
    assert max(size for graph, size in of_whole if graph) > 8
    assert max(size for _, size in passes) <= 6  # of 24: four parts a minibatch at least
    moved = (whole - torch.nn.utils.parameters_to_vector(POLICY.parameters())).norm()
    assert moved > 1e-3
    assert (weights - whole).norm() < 1e-4 * moved
    assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_the_loss_is_not_the_mean_of_the_parts_losses():
    """What adding up the parts' own losses would give is another gradient, even for a mean."""
    advantages = PPO().advantages(ROLLOUT)
    batch = replace(ROLLOUT, advantages=advantages, value_targets=ROLLOUT.values)
    gradients = []
    for selected in ([batch], [batch.select(part) for part in parts_of(batch, SIZE)]):
        POLICY.zero_grad()
        for part in selected:
            outputs = POLICY.outputs(part.tokens, part.mask)
            loss, _ = PPO().loss(part, outputs)
            (loss / len(selected)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in POLICY.parameters()]))
    POLICY.zero_grad()
    assert (gradients[0] - gradients[1]).norm() > 0.05 * gradients[0].norm()


@pytest.mark.parametrize("options", [{"recompute": True}, {"precision": torch.bfloat16}])
def test_with_checkpointed_activations_and_lower_precision(options):
    start = torch.nn.utils.parameters_to_vector(POLICY.parameters())
    whole, *_ = trained("PPO", None, **options)
    weights, *_ = trained("PPO", SIZE, **options)
    allowed = 1e-4 if "recompute" in options else 0.05
    assert (weights - whole).norm() < allowed * (whole - start).norm()


def test_float16_with_its_loss_scale():
    """The scale reaches the parts, and a step that overflows is left out."""
    start = torch.nn.utils.parameters_to_vector(POLICY.parameters())
    whole, *_ = trained("PPO", None)
    weights, metrics, _ = trained("PPO", SIZE, precision=torch.float16)
    assert (weights - whole).norm() < 0.05 * (whole - start).norm()
    assert np.isfinite(metrics["grad_norm"])
    huge = replace(ROLLOUT, rewards=ROLLOUT.rewards * 1e38, scores=ROLLOUT.scores * 1e38)
    still, *_ = trained("RLOO", SIZE, rollout=huge, precision=torch.float16, epochs=1)
    assert torch.equal(still, start)


def test_action_masks_go_with_their_sequences():
    table = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    ids = torch.arange(ROLLOUT.mask.numel()).view(ROLLOUT.mask.shape) % 7
    table[:, :] |= torch.eye(5).bool()[torch.arange(7) % 5]
    batch = replace(ROLLOUT, mask_ids=ids, mask_table=table)
    whole, parts = (
        Trainer(POLICY, PPO(), micro_batch_tokens=size).outputs(batch) for size in (None, SIZE)
    )
    unmasked = Trainer(POLICY, PPO(), micro_batch_tokens=SIZE).outputs(ROLLOUT)
    for expected, got in zip(whole, parts, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(parts.logprobs, unmasked.logprobs, atol=0.1)


def test_parts_hold_every_sequence_once_and_no_more_than_was_asked_for():
    counts = (ROLLOUT.mask * torch.arange(ROLLOUT.mask.shape[1])).amax(1)
    for size in (1, 10, SIZE, 10_000):
        parts = parts_of(ROLLOUT, size)
        assert torch.cat(parts).sort().values.tolist() == list(range(len(ROLLOUT)))
        assert all(len(part) == 1 or counts[part].sum() <= size for part in parts)
        full = [counts[a].sum() + counts[b[0]] > size for a, b in pairwise(parts)]
        assert all(full)
    assert len(parts_of(ROLLOUT, 1)) == len(ROLLOUT)
    assert len(parts_of(ROLLOUT, 10_000)) == len(parts_of(ROLLOUT, None)) == 1
    groups = [ROLLOUT.groups[part].unique_consecutive() for part in parts_of(ROLLOUT, SIZE)]
    assert all(len(some) == len(some.unique()) for some in groups)


def test_sequences_without_a_choice_have_no_scores():
    batch = replace(ROLLOUT, mask=ROLLOUT.mask & (torch.arange(len(ROLLOUT)) > 3)[:, None])
    outputs = Trainer(POLICY, PPO(), micro_batch_tokens=1).outputs(batch)
    assert not outputs.logprobs[:4].any() and outputs.logprobs[4:].any()


def test_a_learner_learns_the_same_in_parts():
    def learn(size):
        policy = make_policy(1)
        learner = Learner(
            policy,
            make_envs(),
            PPO(),
            reference=REFERENCE,
            kl_coef=0.1,
            n_episodes=12,
            micro_batch_tokens=size,
        )
        updates = [learner.update() for _ in range(3)]
        return [(update.score, update.kl, update.metrics["loss"]) for update in updates]

    torch.testing.assert_close(learn(SIZE), learn(None), atol=1e-4, rtol=1e-3)


# --- memory ---------------------------------------------------------------------------------------


class Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and not yet freed.

    Attributes:
        peak: The most that were alive at once.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self._made(tensor.untyped_storage())
        return out

    def _made(self, storage):
        key, size = id(storage), storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key, size):
        self.known.discard(key)
        self.now -= size


def peak_bytes(size, recompute):
    """Of one optimiser step on a minibatch of 120 answers."""
    policy = make_policy(1, n_layer=4)
    policy.transformer.recompute = recompute
    algorithm = PPO(n_epochs=1, minibatch_tokens=None)
    trainer = Trainer(policy, algorithm, micro_batch_tokens=size)
    # Other ids in each: what sequences share is computed and kept once.
    shifted = [(ROLLOUT.tokens + k) % policy.vocab_size for k in range(5)]
    rollout = Rollout.cat([replace(ROLLOUT, tokens=tokens) for tokens in shifted])
    with Alive() as alive:
        trainer.learn_from(rollout)
    return alive.peak


@pytest.mark.parametrize(("recompute", "times"), [(False, 5), (True, 2)])
def test_memory_is_that_of_a_part(recompute, times):
    """What is left are weights, gradients, optimiser and the numbers of the rollout itself."""
    whole, parts = (peak_bytes(size, recompute) for size in (None, SIZE))
    assert parts < whole / times
