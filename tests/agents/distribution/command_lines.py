"""Commands on a tiny policy, in one process or in several, and the weights that they save."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from trainings import network, words

from agents.commands import main

WITHOUT_GRADIENT = ("qkv.bias", "ln_f.bias", "value_head.bias")
"""See `trainings.WITHOUT_GRADIENT`: the files of reward models name them otherwise."""

LINES = {
    "pretrain": "--text text.txt --tokens 400 --window 8 --batch-size 4 --report-every 10",
    "sft": "--examples examples.jsonl --batch-size 4 --choose-by loss",
    "reward-model": "--preferences ranked.jsonl --batch-size 4 --members 2",
    "dpo": "--preferences ranked.jsonl --batch-size 4",
    "train": (
        "--prompts prompts.txt --reward mine.py:reward --tokens 200 --rows 4 --max-new-tokens 6 "
        "--eval-every 2 --eval-answers 4 --save-every 2 --learning-rate 1e-3"
    ),
}


def prepare(folder: Path) -> None:
    """Write what the lines name."""
    network().save(folder / "policy")
    told = words(80)
    (folder / "text.txt").write_text(" ".join(told * 4))
    (folder / "prompts.txt").write_text("".join(f"{word} \n" for word in told[:12]))
    examples = [
        {"prompt": f"{a} ", "response": b} for a, b in zip(told[:20], told[20:40], strict=True)
    ]
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, examples)))
    ranked = [
        {"prompt": f"{a} ", "chosen": b, "rejected": c}
        for a, b, c in zip(told[:20], told[20:40], told[40:60], strict=True)
    ]
    (folder / "ranked.jsonl").write_text("\n".join(map(json.dumps, ranked)))
    (folder / "mine.py").write_text(
        "def reward(episodes):\n    return [float((e.tokens % 2 == 0).mean()) for e in episodes]\n"
    )


def weights_saved_by(folder: str, name: str, sharded: bool) -> dict[str, torch.Tensor]:
    """The weights that a command saves, by file and name."""
    size = dist.get_world_size()
    out = Path(folder) / f"{name}-{size}-{sharded}"
    to = ["--policy", "policy", "--run-folder" if name == "train" else "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main([name, *LINES[name].split(), *to, *(["--shard"] if sharded else [])])
    dist.barrier()
    (place,) = out.glob("*/checkpoint/policy") if name == "train" else [out]
    return {
        f"{path.relative_to(place)}/{key}": value
        for path in sorted(place.rglob("*.safetensors"))
        for key, value in load_file(path).items()
        if not key.endswith(WITHOUT_GRADIENT)
        and not {"epochs", "checkpoint"} & set(path.relative_to(place).parts)
    }


def all_weights(folder: str, sharded: bool) -> dict[str, dict[str, torch.Tensor]]:
    return {name: weights_saved_by(folder, name, sharded) for name in LINES}
