"""Small trainings that run in one process or in several, and what each of them measured."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents import Learner
from agents.algorithms.names import ALGORITHMS
from agents.algorithms.preferences import DPO
from agents.distribution.gathering import full
from agents.distribution.sharded import shard
from agents.feedback.direct import DirectPreferences
from agents.feedback.preferences import Ranking
from agents.feedback.reward_modelling import reward_model_steps
from agents.supervised import (
    BatchRamp,
    Example,
    answer_loss,
    pretraining_steps,
    sft_steps,
    with_language_modelling,
)
from policies import Policy, RewardModel, TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.tokenizers import BytesTokenizer

ROWS, UPDATES = 8, 10
"""Rows of the quick tests; batches, minibatches and data grow with the rows."""
WITHOUT_GRADIENT = ("qkv.bias", "trunk.transformer.ln_f.bias", "trunk.value_head.bias")
"""Biases of keys, and what is added to all scores: Adam makes steps of their rounding errors."""


def share_of_even_ids(episodes):
    return [float(np.mean(e.tokens % 2 == 0)) for e in episodes]


def environment(group_size=1, rows=ROWS):
    return TextVectorEnv(
        rows,
        prompts=["the ", "a ", "some "],
        reward=share_of_even_ids,
        tokenizer="bytes",
        max_new_tokens=8,
        min_new_tokens=2,
        stop_tokens=list(range(32, 100)),
        group_size=group_size,
    )


def network(sharded: bool = False, number_type: torch.dtype = torch.float32) -> TransformerPolicy:
    tokenizer = BytesTokenizer()
    config = TransformerConfig(tokenizer.vocab_size, 16, n_layer=2, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=tokenizer, seed=3).to(number_type)
    return shard(policy) if sharded else policy


def learner_of(
    name: str,
    number_type: torch.dtype = torch.float32,
    sharded: bool = False,
    rows: int = ROWS,
    **settings: Any,
) -> Learner:
    made = ALGORITHMS[name]
    needs = made.needs
    fields: dict[str, Any] = {}
    if name == "ppo-ptx":
        fields = {"stream": np.arange(400) % 97, "ptx_window": 8, "ptx_batch": 3}
    if name == "vine-ppo":
        fields = {"continuations": 2, "step_tokens": 3}
    if name == "tree-po":
        fields = {"segment_tokens": 2}
    chosen = {
        n: settings.pop(n) for n in ("n_epochs", "minibatch_tokens", "target_kl") if n in settings
    }
    if "minibatch_tokens" in chosen:
        chosen["minibatch_tokens"] *= rows // ROWS
    envs = environment(2 if needs.groups else 1, rows)
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=2, n_embd=16, seed=3)
    policy = policy.to(number_type)
    reference = policy.frozen_copy()
    if sharded:
        shard(policy)
        shard(reference)
    algorithm = made(**fields, **chosen)
    return Learner(
        policy,
        envs,
        algorithm,
        reference=reference,
        kl_coef=0.0 if needs.reference else 0.05,
        n_episodes=rows * 3 // 2 if needs.whole_episodes or needs.groups else None,
        n_steps=None if needs.whole_episodes or needs.groups else 10,
        learning_rate=1e-3,
        seed=1,
        **settings,
    )


# -------------------------------------------------------------------- what is measured


class Counted:
    """How many tokens a policy is trained on: those whose log-probability gets a gradient."""

    def __init__(self, *policies: Policy):
        self.tokens = 0
        for policy in policies:
            self.count(policy)

    def count(self, policy: Policy) -> None:
        outputs, logits = policy.outputs, policy.logits

        def counted_outputs(*given: Any, **named: Any):
            found = outputs(*given, **named)
            self._note(found.logprobs, lambda grad: grad)
            return found

        def counted_logits(hidden: Tensor) -> Tensor:
            found = logits(hidden)
            self._note(found, lambda grad: grad.any(-1))
            return found

        policy.outputs = counted_outputs  # type: ignore[method-assign]
        policy.logits = counted_logits  # type: ignore[method-assign]

    def _note(self, found: Tensor, taught: Callable[[Tensor], Tensor]) -> None:
        def note(grad: Tensor) -> None:
            self.tokens += int(taught(grad).count_nonzero())

        if found.requires_grad:
            found.register_hook(note)


def weights_of(policy: torch.nn.Module) -> Tensor:
    named = policy.named_parameters()
    return torch.cat([full(p).flatten() for n, p in named if not n.endswith(WITHOUT_GRADIENT)])


def gradient_of(policy: Policy) -> Tensor:
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters()]
    return torch.cat([full(part).flatten() for part in parts])


@torch.no_grad()
def held_out_logprobs(policy: Policy) -> Tensor:
    """Log-probabilities of 256 random texts."""
    tokens = torch.from_numpy(np.random.default_rng(9).integers(97, 123, (256, 12)))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    return policy.outputs(tokens, mask).logprobs


def first_gradient(name: str, sharded: bool = False, rows: int = ROWS) -> dict[str, Any]:
    """The gradient of an algorithm's first update in float64, and its metrics."""
    learner = learner_of(name, torch.float64, sharded, rows)
    before = weights_of(learner.policy)
    update = learner.update()
    gradient = gradient_of(learner.policy)
    if not gradient.any():  # TRPO leaves none behind, but a step
        gradient = weights_of(learner.policy) - before
    return {"gradient": gradient, "metrics": plain(update.metrics)}


def training(
    name: str, updates: int = UPDATES, saved_in: str | None = None, **settings: Any
) -> dict[str, Any]:
    """Some updates: their rollouts and metrics, and what the policy has become.

    With `saved_in`, the learner is saved half-way, and another one goes on.
    """
    learner = learner_of(name, **settings)
    counts = Counted(learner.policy)
    rollouts, metrics = [], []
    for number in range(updates):
        if saved_in is not None and number == updates // 2:
            learner.save(saved_in)
            learner = learner_of(name, **settings)
            learner.load(saved_in)
            counts.count(learner.policy)
        update = learner.update()
        rollout = update.rollout
        rollouts.append(
            (rollout.tokens, rollout.mask, rollout.groups, rollout.scores, rollout.turns)
        )
        told = {n: getattr(update, n) for n in ("score", "kl", "entropy", "tokens", "episodes")}
        metrics.append(plain(update.metrics) | told)
    return {
        "rollouts": rollouts,
        "metrics": metrics,
        "trained_tokens": counts.tokens,
        "weights": weights_of(learner.policy),
        "logprobs": held_out_logprobs(learner.policy),
    }


def words(count: int) -> list[str]:
    """Words of two to six random letters."""
    generators = map(np.random.default_rng, range(count))
    return [
        "".join(map(chr, generator.integers(97, 123, 2 + number % 5)))
        for number, generator in enumerate(generators)
    ]


def rankings_of(count: int, answers: int = 3) -> list[Ranking]:
    """Rankings of `answers` answers and, every other one, of one less."""
    told = words(count + answers)
    return [
        Ranking(
            prompt=f"{chr(97 + i % 26)} ",
            answers=tuple(told[i : i + answers - i % 2]),
            ranks=(2, 1, 2)[: answers - i % 2],
        )
        for i in range(count)
    ]


def direct_preferences(
    sharded: bool = False, rows: int = ROWS, first: bool = False
) -> dict[str, Any]:
    """DPO on rankings of a file."""
    policy = network(sharded, torch.float64 if first else torch.float32)
    reference = network(sharded).to(torch.float64 if first else torch.float32)
    learning = DirectPreferences(
        policy, reference.requires_grad_(False), DPO(), batch_size=rows // 2
    )
    return fitted(policy, learning.steps(rankings_of(rows * 5 // 4), epochs=4), first)


def pretraining(sharded: bool = False, rows: int = ROWS, first: bool = False) -> dict[str, Any]:
    """Pretraining on windows; the last step's second pass has fewer windows than processes."""
    policy = network(sharded, torch.float64 if first else torch.float32)
    stream = np.random.default_rng(0).integers(97, 123, 500)
    steps = pretraining_steps(
        policy,
        stream,
        total_tokens=10 * 5 * rows,
        window=8,
        batch_size=rows // 2,
        accumulate=2,
        ramp=BatchRamp(rows // 2 + 1, 50 * rows),
    )
    return fitted(policy, steps, first)


def fine_tuning(
    loss=answer_loss, sharded: bool = False, rows: int = ROWS, first: bool = False
) -> dict[str, Any]:
    """SFT on examples of several lengths; the last batch has fewer than the others."""
    policy = network(sharded, torch.float64 if first else torch.float32)
    count = rows * 9 // 4
    told = words(2 * count)
    examples = [
        Example(((f"{a} ", False), (b, True)))
        for a, b in zip(told[:count], told[count:], strict=True)
    ]
    return fitted(policy, sft_steps(policy, examples, epochs=4, batch_size=rows, loss=loss), first)


def reward_modelling(rows: int = ROWS, first: bool = False) -> dict[str, Any]:
    """A reward model of rankings with three and with two answers."""
    model = RewardModel.from_policy(network(), seed=2).to(torch.float64 if first else torch.float32)
    steps = reward_model_steps(model, rankings_of(rows * 5 // 4), epochs=4, batch_size=rows // 2)
    return fitted(model, steps, first)


def fitted(model: Policy | RewardModel, steps: Iterator[Any], first: bool) -> dict[str, Any]:
    """The gradient of the first of some steps, or what all of them made of the model."""
    if first:
        told = vars(next(steps))
        return {"gradient": gradient_of(model), "metrics": told}
    counts = Counted(model) if isinstance(model, Policy) else None
    told = [vars(step) for step in steps]
    measured = {"metrics": told, "weights": weights_of(model), "logprobs": held_out(model)}
    return measured | ({"trained_tokens": counts.tokens} if counts else {})


def held_out(model: Policy | RewardModel) -> Tensor:
    """Log-probabilities of 256 texts; or their rewards, of which only differences are trained."""
    if isinstance(model, Policy):
        return held_out_logprobs(model)
    rewards = torch.from_numpy(model.score_texts(["a "] * 256, words(256)))
    return rewards - rewards.mean()


def plain(metrics: dict[str, float]) -> dict[str, float]:
    """Without what the work has cost: a beginning that two processes share is read by both."""
    costs = ("seconds", "encoded")
    return {n: value for n, value in metrics.items() if not any(cost in n for cost in costs)}


GRPO = partial(training, "grpo", n_epochs=2, minibatch_tokens=40)
LONG = {
    "ppo": partial(training, "ppo", n_epochs=2, minibatch_tokens=30),
    "grpo": GRPO,
    "dpo": partial(training, "dpo", minibatch_tokens=40),
    "grpo in parts": partial(training, "grpo", micro_batch_tokens=30),
    "ppo that stops early": partial(training, "ppo", updates=3, n_epochs=4, target_kl=1e-5),
    "dpo of a file": direct_preferences,
    "pretraining": pretraining,
    "sft": fine_tuning,
    "sft with language modelling": partial(fine_tuning, with_language_modelling(0.5)),
    "reward model": reward_modelling,
}
SUPERVISED = {
    "dpo of a file": direct_preferences,
    "pretraining": pretraining,
    "sft": fine_tuning,
    "reward model": reward_modelling,
}
FIRST = {f"first of {name}": partial(first_gradient, name) for name in ALGORITHMS}
FIRST |= {f"first of {name}": partial(one, first=True) for name, one in SUPERVISED.items()}


RESUMED = "grpo that was saved and resumed"
SHARDED = {
    name: partial((FIRST | LONG)[name], sharded=True)
    for name in (
        *("first of ppo", "first of grpo", "first of dpo of a file", "first of pretraining"),
        *("first of sft", "ppo", "grpo", "grpo in parts", "dpo of a file", "pretraining", "sft"),
    )
}
WANTED = ("ppo", "grpo", "dpo", "dpo of a file", "sft", "pretraining")
"""Trainings of which the full tier takes more rows."""


def run_sharded(folder: str) -> dict[str, Any]:
    """What the trainings of sharded networks measured, by the names of those of whole ones."""
    measured = {name: measure() for name, measure in SHARDED.items()}
    return measured | {RESUMED: GRPO(saved_in=f"{folder}/grpo", sharded=True)}


def run_wanted(rows: int, sharded: bool = False) -> dict[str, Any]:
    """The first gradients, and ten updates, on `rows` rows."""
    return {
        name: measure(rows=rows, sharded=sharded)
        for name, measure in (FIRST | LONG).items()
        if name.removeprefix("first of ") in WANTED
    }


def go_on_from(folder: str, sharded: bool = False) -> list[dict[str, float]]:
    """The metrics of the second half of a training, from its checkpoint."""
    learner = learner_of(*GRPO.args, **GRPO.keywords, sharded=sharded)
    learner.load(f"{folder}/grpo")
    return [plain(learner.update().metrics) for _ in range(UPDATES // 2)]


def run_all(folder: str) -> dict[str, Any]:
    """What all trainings measured, by name; `folder` is for checkpoints."""
    measured = {name: measure() for name, measure in (FIRST | LONG).items()}
    return measured | {RESUMED: GRPO(saved_in=f"{folder}/grpo")}
