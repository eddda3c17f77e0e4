"""Small trainings that run in one process or in several, and what each of them measured."""

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
WITHOUT_GRADIENT = ("qkv.bias", "trunk.transformer.ln_f.bias", "trunk.value_head.bias")
"""Biases of keys, and what is added to all scores: Adam makes steps of their rounding errors."""


def share_of_even_ids(episodes):
    return [float(np.mean(e.tokens % 2 == 0)) for e in episodes]


def environment(group_size=1):
    return TextVectorEnv(
        ROWS,
        prompts=["the ", "a ", "some "],
        reward=share_of_even_ids,
        tokenizer="bytes",
        max_new_tokens=8,
        min_new_tokens=2,
        stop_tokens=list(range(32, 100)),
        group_size=group_size,
    )


def network(sharded: bool = False) -> TransformerPolicy:
    tokenizer = BytesTokenizer()
    config = TransformerConfig(tokenizer.vocab_size, 16, n_layer=2, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=tokenizer, seed=3)
    return shard(policy) if sharded else policy


def learner_of(
    name: str,
    number_type: torch.dtype = torch.float32,
    sharded: bool = False,
    **settings: Any,
) -> Learner:
    made = ALGORITHMS[name]
    needs = made.needs
    fields: dict[str, Any] = {}
    if name == "ppo-ptx":
        fields = {"stream": np.arange(400) % 97, "ptx_window": 8, "ptx_batch": 3}
    if name == "vine-ppo":
        fields = {"continuations": 2, "step_tokens": 3}
    chosen = {
        n: settings.pop(n) for n in ("n_epochs", "minibatch_tokens", "target_kl") if n in settings
    }
    envs = environment(2 if needs.groups else 1)
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
        n_episodes=12 if needs.whole_episodes or needs.groups else None,
        n_steps=None if needs.whole_episodes or needs.groups else 10,
        learning_rate=1e-3,
        seed=1,
        **settings,
    )


# -------------------------------------------------------------------- what is measured


def counted(policy: Policy, counts: list[int]) -> None:
    """Note how many tokens each pass with gradient reads choices of."""
    plain = policy.outputs

    def outputs(tokens: Tensor, mask: Tensor, **given: Any):
        if torch.is_grad_enabled():
            counts.append(int(mask.sum()))
        return plain(tokens, mask, **given)

    policy.outputs = outputs  # type: ignore[method-assign]


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


def first_gradient(name: str, sharded: bool = False) -> dict[str, Any]:
    """The gradient of an algorithm's first update in float64, and its metrics."""
    learner = learner_of(name, torch.float64, sharded)
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
    learner, counts = learner_of(name, **settings), []
    counted(learner.policy, counts)
    rollouts, metrics = [], []
    for number in range(updates):
        if saved_in is not None and number == updates // 2:
            learner.save(saved_in)
            learner = learner_of(name, **settings)
            learner.load(saved_in)
            counted(learner.policy, counts)
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
        "trained_tokens": sum(counts),
        "weights": weights_of(learner.policy),
        "logprobs": held_out_logprobs(learner.policy),
    }


def direct_preferences(sharded: bool = False) -> dict[str, Any]:
    """DPO on rankings of a file."""
    policy, reference = network(sharded), network(sharded).requires_grad_(False)
    rankings = [
        Ranking(prompt=f"{p} ", answers=tuple(WORDS[i : i + 3]), ranks=(1, 2, 2))
        for i, p in enumerate("abc")
    ]
    learning = DirectPreferences(policy, reference, DPO(), batch_size=2)
    steps = [vars(step) for step in learning.steps(rankings, epochs=3)]
    return {"metrics": steps, "weights": weights_of(policy), "logprobs": held_out_logprobs(policy)}


WORDS = [
    "".join(map(chr, np.random.default_rng(n).integers(97, 123, 2 + n % 5))) for n in range(18)
]


def pretraining(sharded: bool = False) -> dict[str, Any]:
    """Pretraining on windows; the last step's second pass has fewer windows than processes."""
    policy = network(sharded)
    stream = np.random.default_rng(0).integers(97, 123, 500)
    steps = pretraining_steps(
        policy,
        stream,
        total_tokens=10 * 40,
        window=8,
        batch_size=4,
        accumulate=2,
        ramp=BatchRamp(5, 400),
    )
    return fitted(policy, steps)


def fine_tuning(loss=answer_loss, sharded: bool = False) -> dict[str, Any]:
    """SFT on examples of several lengths; the last batch has fewer than the others."""
    policy = network(sharded)
    examples = [
        Example(((f"{a} ", False), (b, True))) for a, b in zip(WORDS[:9], WORDS[9:], strict=True)
    ]
    return fitted(policy, sft_steps(policy, examples, epochs=4, batch_size=4, loss=loss))


def reward_modelling() -> dict[str, Any]:
    """A reward model of rankings with three and with two answers."""
    model = RewardModel.from_policy(network(), seed=2)
    rankings = [
        Ranking(
            prompt=f"{p} ", answers=tuple(WORDS[i : i + 2 + i % 2]), ranks=(2, 1, 3)[: 2 + i % 2]
        )
        for i, p in enumerate("abcde")
    ]
    steps = [vars(s) for s in reward_model_steps(model, rankings, epochs=4, batch_size=2)]
    return {"metrics": steps, "weights": weights_of(model), "logprobs": torch.zeros(0)}


def fitted(policy: Policy, steps) -> dict[str, Any]:
    told = [vars(step) for step in steps]
    return {"metrics": told, "weights": weights_of(policy), "logprobs": held_out_logprobs(policy)}


def plain(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "seconds" not in name}


GRPO = partial(training, "grpo", n_epochs=2, minibatch_tokens=40)
LONG = {
    "ppo": partial(training, "ppo", n_epochs=2, minibatch_tokens=30),
    "grpo": GRPO,
    "grpo in parts": partial(training, "grpo", micro_batch_tokens=30),
    "ppo that stops early": partial(training, "ppo", updates=3, n_epochs=4, target_kl=1e-5),
    "dpo of a file": direct_preferences,
    "pretraining": pretraining,
    "sft": fine_tuning,
    "sft with language modelling": partial(fine_tuning, with_language_modelling(0.5)),
    "reward model": reward_modelling,
}
FIRST = {f"first of {name}": partial(first_gradient, name) for name in ALGORITHMS}


RESUMED = "grpo that was saved and resumed"
SHARDED = {
    "first of ppo": partial(first_gradient, "ppo", sharded=True),
    "first of grpo": partial(first_gradient, "grpo", sharded=True),
    "ppo": partial(LONG["ppo"], sharded=True),
    "grpo": partial(GRPO, sharded=True),
    "grpo in parts": partial(LONG["grpo in parts"], sharded=True),
    "dpo of a file": partial(direct_preferences, sharded=True),
    "pretraining": partial(pretraining, sharded=True),
    "sft": partial(fine_tuning, sharded=True),
}


def run_sharded(folder: str) -> dict[str, Any]:
    """What the trainings of sharded networks measured, by the names of those of whole ones."""
    measured = {name: measure() for name, measure in SHARDED.items()}
    return measured | {RESUMED: GRPO(saved_in=f"{folder}/grpo", sharded=True)}


def go_on_from(folder: str, sharded: bool = False) -> list[dict[str, float]]:
    """The metrics of the second half of a training, from its checkpoint."""
    learner = learner_of(*GRPO.args, **GRPO.keywords, sharded=sharded)
    learner.load(f"{folder}/grpo")
    return [plain(learner.update().metrics) for _ in range(UPDATES // 2)]


def run_all(folder: str) -> dict[str, Any]:
    """What all trainings measured, by name; `folder` is for checkpoints."""
    measured = {name: measure() for name, measure in (FIRST | LONG).items()}
    return measured | {RESUMED: GRPO(saved_in=f"{folder}/grpo")}
