"""A tool call that a policy learns under a grammar and never finds without one, as a figure.

A prompt is one of six letters, and each stands for a call such as {"tool":"add","a":2,"b":1}. An
answer is paid for each of the three values that is right, and only if all of it is a whole call.
The policy begins with random weights over the 256 bytes. With the schema as its grammar it has to
learn which values belong to which letter; without, it would first have to write 24 bytes of JSON by
chance. Both have the same seeds, prompts, learner and number of answers.

Run: python -m benchmarks.grammar_learning --figure docs/figures/grammar_learning.svg
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import GRPO, Learner
from benchmarks.common import command_line
from policies import TransformerPolicy
from textenv import TextVectorEnv
from textenv.grammars import JsonSchema

TOOLS, MOST = ("add", "mul"), 3
ANSWERS = 64
"""In an update."""

SCHEMA = {
    "type": "object",
    "properties": {
        "tool": {"enum": list(TOOLS)},
        "a": {"type": "integer", "minimum": 0, "maximum": MOST},
        "b": {"type": "integer", "minimum": 0, "maximum": MOST},
    },
    "required": ["tool", "a", "b"],
    "additionalProperties": False,
}
PROMPTS = [
    {"prompt": request, "call": {"tool": TOOLS[n % 2], "a": n % (MOST + 1), "b": (5 * n) % 3}}
    for n, request in enumerate("uvwxyz")
]


def share_right(episodes: Sequence[Any]) -> list[float]:
    """Of each answer the share of right values; 0 unless it is a whole call."""
    return [_share(episode.text, episode.columns["call"]) for episode in episodes]


def _share(text: str, wanted: dict[str, Any]) -> float:
    try:
        said = json.loads(text)
    except ValueError:
        return 0.0
    if not isinstance(said, dict) or said.keys() != wanted.keys():
        return 0.0
    return sum(said[name] == value for name, value in wanted.items()) / len(wanted)


def curve(grammar: JsonSchema | None, seed: int, updates: int) -> list[float]:
    """Mean score of the answers of each update."""
    envs = TextVectorEnv(
        64,
        prompts=PROMPTS,
        reward=share_right,
        tokenizer="bytes",
        max_new_tokens=28,
        group_size=8,
        grammar=grammar,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=2, n_head=2, n_embd=32, seed=seed)
    learner = Learner(
        policy, envs, GRPO(n_epochs=4), learning_rate=3e-3, n_episodes=ANSWERS, seed=seed
    )
    stream = learner.updates(total_tokens=10**9)
    return [next(stream).score for _ in range(updates)]


def draw(curves: dict[str, Sequence[Sequence[float]]], file: Path) -> None:
    """The figure: the mean over the seeds, and each seed as a thin line."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "textenv"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for colour, (name, seeds) in zip(("tab:blue", "tab:red"), curves.items(), strict=True):
        at = ANSWERS * np.arange(1, len(seeds[0]) + 1)
        axes.plot(at, np.mean(seeds, 0), color=colour, label=name, linewidth=2)
        for one in seeds:
            axes.plot(at, one, color=colour, alpha=0.25, linewidth=0.7)
    axes.set(xlabel="answers", ylabel="right values, share", ylim=(-0.03, 1.03))
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.25))
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    parser = command_line(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    curves: dict[str, Sequence[Sequence[float]]] = {}
    for name, grammar in (("with the schema", JsonSchema(SCHEMA)), ("without", None)):
        seeds = [curve(grammar, seed, options.updates) for seed in range(options.seeds)]
        curves[name] = seeds
        print(f"{name}: last ten updates {[round(float(np.mean(s[-10:])), 3) for s in seeds]}")
    if options.figure is not None:
        draw(curves, options.figure)
    print(json.dumps({"benchmark": "grammar_learning", "curves": curves}))
