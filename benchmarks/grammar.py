"""Grammars: whether random walks under JSON schemas are valid, and what a rollout step costs.

`walks`: a policy with random weights answers under each of `SCHEMAS`, and every answer is checked
by the library jsonschema. `step`: rollout steps of model M (32 rows, GPT-2's vocabulary) with a
schema and without, in turns and with answers of the same lengths; and what a rollout keeps of its
masks.

Run: taskset -c 0 python -m benchmarks.grammar walks --walks 500
     taskset -c 0 python -m benchmarks.grammar step --threads 1
"""

import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import jsonschema
import torch

from agents.collector import Collector
from benchmarks.common import (
    MAX_ANSWER,
    ROWS,
    command_line,
    config,
    interleaved,
    no_reward,
    processor,
    random_prompts,
    ratios,
)
from benchmarks.rollout import PlannedLengths
from policies import TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.grammars import JsonSchema
from textenv.tokenizers import load_tokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, Any] = {
    "integer": {"type": "integer"},
    "limits": {"type": "integer", "minimum": -5, "maximum": 250},
    "number": {"type": "number"},
    "open interval": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "boolean or null": {"type": ["boolean", "null"]},
    "string": {"type": "string"},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 9},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"},
    "date": {"type": "string", "format": "date"},
    "enum": {"enum": ["red", "green", 3, None, {"a": [1]}]},
    "const": {"const": {"version": 2}},
    "any object": {"type": "object"},
    "person": PERSON,
    "optional": {
        "type": "object",
        "properties": {"best": POINT, "worst": POINT, "note": {"type": "string", "maxLength": 5}},
        "additionalProperties": False,
    },
    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 5},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "string", "maxLength": 4}, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    "any of": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "boolean"}}]},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "v": {"type": "integer"},
                    "c": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["v", "c"],
                "additionalProperties": False,
            }
        },
    },
    "call": {
        "type": "object",
        "properties": {
            "tool": {"enum": ["add", "search"]},
            "arguments": {"anyOf": [POINT, {"type": "string", "maxLength": 8}]},
            "id": {"type": "string", "pattern": "^[0-9a-f]{4}$"},
        },
        "required": ["tool", "arguments", "id"],
        "additionalProperties": False,
    },
}
"""Twenty schemas, with the keywords that tool calls and records have."""


def tiny_policy(tokenizer: Any, seed: int) -> TransformerPolicy:
    """A policy with random weights, whose choices are nearly uniform."""
    shape = TransformerConfig(
        vocab_size=tokenizer.vocab_size, context=128, n_layer=1, n_head=2, n_embd=16
    )
    return TransformerPolicy(shape, tokenizer=tokenizer, seed=seed)


def walk(
    schema: Any, tokenizer: Any, walks: int, budget: int = 64, seed: int = 0
) -> tuple[list[str], Counter[str]]:
    """Answers of a policy that were whole, and how many ended in which way.

    Args:
        schema: The JSON schema of the answers.
        tokenizer: Of the policy.
        walks: Number of answers.
        budget: Tokens that an answer may have.
        seed: Of the policy and of its choices.
    """
    texts, reasons = [], Counter[str]()

    def note(episodes: Any) -> list[float]:
        reasons.update(episode.finish_reason for episode in episodes)
        texts.extend(e.text for e in episodes if e.finish_reason == "stop")
        return [0.0] * len(episodes)

    envs = TextVectorEnv(
        32,
        prompts=["JSON: "],
        reward=note,
        tokenizer=tokenizer,
        grammar=JsonSchema(schema),
        max_new_tokens=budget,
    )
    Collector(tiny_policy(tokenizer, seed), envs, seed=seed).collect_episodes(walks)
    return texts, reasons


def walks(count: int, name_of_tokenizer: str) -> None:
    """Print, for each schema, how many of `count` walks were whole and valid."""
    tokenizer = load_tokenizer(name_of_tokenizer)
    ended, valid, began = Counter[str](), 0, time.perf_counter()
    for name, schema in SCHEMAS.items():
        begin = time.perf_counter()
        texts, reasons = walk(schema, tokenizer, count)
        for text in texts:
            jsonschema.validate(json.loads(text), schema)  # raises where one is not
        ended, valid = ended + reasons, valid + len(texts)
        seconds = time.perf_counter() - begin
        print(f"{name:16} {dict(reasons)} all valid, {seconds:.1f} s", flush=True)
    result = {"walks": ended.total(), "valid": valid, "ends": dict(ended)}
    print(json.dumps(result | {"seconds": round(time.perf_counter() - began)}))


def step(repeats: int, schemas: Sequence[str], steps: int = MAX_ANSWER) -> None:
    """Print the seconds of a rollout step of model M with a grammar and without."""
    tokenizer = load_tokenizer("gpt2")
    policy = TransformerPolicy(config("M"), tokenizer=tokenizer, seed=0)
    arguments: dict[str, Any] = {
        "prompts": [{"tokens": ids} for ids in random_prompts(512, policy.vocab_size)],
        "reward": no_reward,
        "tokenizer": tokenizer,
        "max_new_tokens": MAX_ANSWER,
    }
    results = {}
    for name in schemas:
        lengths: list[int] = []
        grammar = TextVectorEnv(ROWS, grammar=JsonSchema(SCHEMAS[name]), **arguments)
        sides = {"grammar": grammar, "plain": PlannedLengths(lengths, **arguments)}
        collectors = {side: Collector(policy, envs, seed=0) for side, envs in sides.items()}
        kept: dict[str, Any] = {}

        def run(
            side: str, collectors: Any = collectors, kept: Any = kept, to: Any = lengths
        ) -> float:
            begin = time.perf_counter()
            rollout = kept[side] = collectors[side].collect_steps(steps)
            seconds = (time.perf_counter() - begin) / steps
            if side == "grammar":
                to += rollout.endings["tokens"][rollout.finished].int().tolist()
            return seconds

        figures = interleaved({side: partial(run, side) for side in sides}, repeats)
        rollout, quotients = kept["grammar"], ratios(figures, "grammar", "plain")
        table = rollout.mask_table
        results[name] = {
            "ratio": round(statistics.median(quotients), 3),
            "from": round(min(quotients), 3),
            "to": round(max(quotients), 3),
            "ms with": round(1e3 * statistics.median(figures["grammar"]), 1),
            "ms without": round(1e3 * statistics.median(figures["plain"]), 1),
            "ended with": int(rollout.finished.sum()),
            "ended without": int(kept["plain"].finished.sum()),
            "masks": len(table),
            "mask kB": round(table.nbytes / 1e3),
            "tokens": rollout.num_tokens,
        }
        print(name, results[name], flush=True)
    machine = {"processor": processor(), "threads": torch.get_num_threads()}
    print(json.dumps({"benchmark": "grammar", "rows": results, **machine}))


if __name__ == "__main__":
    parser = command_line(__doc__ or "")
    parser.add_argument("what", choices=("walks", "step"))
    parser.add_argument("--walks", type=int, default=500, help="answers under each schema")
    parser.add_argument("--tokenizer", default="bytes", help="of the walks")
    parser.add_argument("--schemas", nargs="+", default=["person", "string", "tree", "call"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "walks":
        walks(options.walks, options.tokenizer)
    else:
        step(options.repeats, options.schemas)
