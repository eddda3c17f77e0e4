"""The supervised stages on one model of Hugging Face: textenv beside TRL's trainers.

SFT, the reward model and DPO learn from the same preferences of hh-rlhf with the same model, ids,
number of steps, batch, learning rate, schedule and AdamW; both in fp32, without checkpoints of
activations and without dropout. Each side trains in a process of its own, in turn, in every round
with another order of the data, and saves the model. One examination, by plain transformers, then
looks at all of them: the loss of held-out answers, and the share of held-out pairs in the right
order. Seconds are the processor's in the training loop, memory is what the loop adds to the process
at its peak.

The model is a Llama of 0.7M parameters that `textenv pretrain` would make of the dialogues; give
another one as --model.

Run: taskset -c 0 python -m benchmarks.trl_trainers harmless-base-test.jsonl.gz --threads 1
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.algorithms.preferences import DPO
from agents.evaluation import bootstrap_interval
from agents.feedback import (
    DirectPreferences,
    Ranking,
    read_rankings,
    reward_model_steps,
    split_rankings,
)
from agents.supervised import Example, pretraining_steps, sft_steps
from benchmarks.common import command_line, ratio, report
from policies import HuggingFacePolicy, RewardModel

TASKS = ("sft", "reward model", "dpo")
SIDES = ("textenv", "TRL")
COSTS = ("seconds", "MB")
RATES = {"sft": 5e-4, "reward model": 5e-4, "dpo": 2e-4}
CONTEXT, HELD_OUT, BATCH = 160, 200, 16
WARMUP, FLOOR, BETA = 0.05, 0.1, 0.1

# -------------------------------------------------------------------- what both sides are given


def tiny_llama(folder: Path, dialogues: list[str], tokens: int) -> None:
    """Write a Llama that has read some dialogues, with a vocabulary of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        dialogues,
        trainers.BpeTrainer(
            vocab_size=2048,
            special_tokens=["<end>", "<pad>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<pad>")
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
        tie_word_embeddings=True,
    )
    policy = HuggingFacePolicy(LlamaForCausalLM(shape), tokenizer)
    stream = [t for text in dialogues for t in (*policy.tokenizer.encode(text), 0)]
    for step in pretraining_steps(
        policy,
        np.array(stream),
        total_tokens=tokens,
        window=CONTEXT,
        batch_size=8,
        learning_rate=2e-3,
    ):
        last = step
    print(f"{len(stream)} tokens of dialogues; loss after {tokens}: {last.loss:.2f}", flush=True)
    policy.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fitting(rankings: list[Ranking], tokenizer: Any) -> list[Ranking]:
    """Pairs that no side has to cut, and whose answers begin where a token begins."""
    kept = []
    for ranking in rankings:
        prompt = tokenizer(ranking.prompt)["input_ids"]
        whole = [tokenizer(ranking.prompt + answer)["input_ids"] for answer in ranking.answers]
        begin = all(ids[: len(prompt)] == prompt and len(ids) > len(prompt) for ids in whole)
        if begin and max(map(len, whole)) < CONTEXT:
            kept.append(ranking)
    return kept


# -------------------------------------------------------------------- the sides


def textenv_side(task: str, folder: Path, pairs: list[Ranking], steps: int, seed: int) -> Any:
    """Train with textenv; returns what runs it, and what saves it."""
    policy = HuggingFacePolicy.from_pretrained(folder, context=CONTEXT)
    how = {"batch_size": BATCH, "learning_rate": RATES[task], "seed": seed}
    if task == "sft":
        examples = [Example(((p.prompt, False), (p.answers[0], True))) for p in pairs]
        return lambda: list(sft_steps(policy, examples, **how)), policy.model, None
    if task == "reward model":
        model = RewardModel.with_fresh_head(policy, seed=0)
        run = lambda: list(reward_model_steps(model, pairs, weight_decay=0.0, **how))  # noqa: E731
        return run, policy.model, policy.value_head
    direct = DirectPreferences(policy, policy.frozen_copy(), DPO(beta=BETA), **how)
    return lambda: list(direct.steps(pairs)), policy.model, None


def trl_side(task: str, folder: Path, pairs: list[Ranking], steps: int, seed: int) -> Any:
    """The same with TRL's trainer of the task."""
    import transformers
    import trl
    from datasets import Dataset

    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kind = {"sft": "SFT", "reward model": "Reward", "dpo": "DPO"}[task]
    schedule: dict[str, Any] = {
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": FLOOR},
        "warmup_steps": round(WARMUP * steps),
        "adam_beta2": 0.95,
    }
    if task == "dpo":  # textenv's falls linearly to a tenth there, with Adam as it is
        end = {"lr_end": RATES[task] * FLOOR, "power": 1.0}
        schedule = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": end, "beta": BETA}
    arguments = getattr(trl, f"{kind}Config")(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        learning_rate=RATES[task],
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=CONTEXT + 1,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1_000_000,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=seed,
        **schedule,
    )
    if task == "reward model":
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32
        )
        policy = HuggingFacePolicy.from_pretrained(folder, context=CONTEXT)
        with torch.no_grad():  # the same first head
            model.score.weight.copy_(RewardModel.with_fresh_head(policy).trunk.value_head.weight)
        del policy
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    columns = {
        "sft": {
            "prompt": [p.prompt for p in pairs],
            "completion": [p.answers[0] for p in pairs],
        },
        "reward model": {
            "chosen": [p.prompt + p.answers[0] for p in pairs],
            "rejected": [p.prompt + p.answers[1] for p in pairs],
        },
        "dpo": {
            "prompt": [p.prompt for p in pairs],
            "chosen": [p.answers[0] for p in pairs],
            "rejected": [p.answers[1] for p in pairs],
        },
    }
    trainer = getattr(trl, f"{kind}Trainer")(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns[task]),
        processing_class=tokenizer,
    )
    return trainer.train, trainer.model, getattr(trainer.model, "score", None)


def child(side: str, task: str, folder: Path, pairs: Path, seed: int, threads: int) -> None:
    """Train one side in this process, save the model, and print seconds and memory."""
    torch.set_num_threads(threads)
    rankings = read_rankings(pairs)
    steps = len(rankings) // BATCH
    made = textenv_side if side == "textenv" else trl_side
    run, model, head = made(task, folder, rankings, steps, seed)
    before = _memory("VmRSS")
    begin = time.process_time()  # of this process alone, whatever else the machine does
    run()
    seconds = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out = Path(tempfile.mkdtemp())
    weights = (model if head is None else model.model).state_dict()
    torch.save({"trunk": weights, "head": None if head is None else head.state_dict()}, out / "w")
    print(json.dumps({"seconds": seconds, "MB": peak - before, "out": str(out / "w")}))


def _memory(name: str) -> float:
    """A figure of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


# -------------------------------------------------------------------- the examination


@torch.no_grad()
def examined(task: str, folder: Path, out: Path, held_out: list[Ranking]) -> np.ndarray:
    """A figure of each held-out pair: the loss of its better answer, or whether it is in order."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    saved = torch.load(out, weights_only=True)
    head = None
    if task == "reward model":
        model.model.load_state_dict(saved["trunk"])
        head = saved["head"]["weight"][0]
    else:
        model.load_state_dict(saved["trunk"])

    def logprobs(network: Any, ids: torch.Tensor, begin: int) -> torch.Tensor:
        logits = network(ids[None]).logits[0, begin - 1 : -1].log_softmax(1)
        return logits.gather(1, ids[begin:, None])[:, 0]

    figures = []
    for pair in held_out:
        begin = len(tokenizer(pair.prompt)["input_ids"])
        texts = [
            torch.tensor([*tokenizer(pair.prompt + a)["input_ids"], tokenizer.eos_token_id])
            for a in pair.answers
        ]
        if task == "sft":
            figures.append(-float(logprobs(model, texts[0], begin).mean()))
            continue
        if head is not None:
            scores = [model.model(ids[None]).last_hidden_state[0, -1] @ head for ids in texts]
        else:
            scores = [
                logprobs(model, ids, begin).sum() - logprobs(base, ids, begin).sum()
                for ids in texts
            ]
        margin = float(scores[0] - scores[1])
        figures.append((margin > 0) + 0.5 * (margin == 0))
    return np.array(figures)


def main() -> None:
    """Prepare, train every side of every task in turn, examine and report."""
    parser = command_line(__doc__)
    parser.add_argument("preferences", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--pretrain-tokens", type=int, default=300_000)
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "TASK", "SEED"))
    args = parser.parse_args()
    if args.child:
        side, task, seed = args.child
        child(side, task, args.model, args.preferences, int(seed), args.threads)
        return
    torch.set_num_threads(args.threads)
    from transformers import AutoTokenizer

    work = Path(tempfile.mkdtemp())
    training, held_out = split_rankings(read_rankings(args.preferences), 0.2)
    folder = args.model or work / "model"
    if args.model is None:
        tiny_llama(folder, [f"{r.prompt}{r.answers[0]}" for r in training], args.pretrain_tokens)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    training = fitting(training, tokenizer)[: args.steps * BATCH]
    held_out = fitting(held_out, tokenizer)[:HELD_OUT]
    pairs = work / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps(r.to_record()) for r in training), encoding="utf-8")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in range(args.repeats):
        for task in TASKS:
            for side in SIDES if seed % 2 else SIDES[::-1]:
                line = [sys.executable, "-m", "benchmarks.trl_trainers", str(pairs)]
                line += ["--model", str(folder), "--threads", str(args.threads)]
                line += ["--child", side, task, str(seed)]
                ran = subprocess.run(line, check=True, capture_output=True, text=True)
                result = json.loads(ran.stdout.splitlines()[-1])
                result["figures"] = examined(task, folder, Path(result["out"]), held_out)
                found.setdefault((task, side), []).append(result)
                print(f"round {seed + 1}: {task}, {side}", file=sys.stderr, flush=True)
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        for side in SIDES:
            results = found[task, side]
            # One figure of each held-out pair, the mean over the rounds.
            each = np.mean([result["figures"] for result in results], axis=0)
            rows.append(
                {
                    "task": task,
                    "side": side,
                    **bootstrap_interval(each)._asdict(),
                    **{k: float(np.median([one[k] for one in results])) for k in COSTS},
                }
            )
        costs = {c: {s: [one[c] for one in found[task, s]] for s in SIDES} for c in COSTS}
        ours, theirs = (
            np.mean([result["figures"] for result in found[task, side]], axis=0) for side in SIDES
        )
        names = ("TRL - textenv", *(f"{cost}, TRL / textenv" for cost in COSTS))
        rows[-2] |= dict.fromkeys(names, "")
        rows[-1] |= {"TRL - textenv": str(bootstrap_interval(theirs - ours))}
        rows[-1] |= {f"{c}, TRL / textenv": ratio(costs[c], "TRL", "textenv") for c in COSTS}
    report(
        "trl_trainers",
        rows,
        held_out=len(held_out),
        steps=args.steps,
        batch=BATCH,
        context=CONTEXT,
        rates=RATES,
        pretrain_tokens=args.pretrain_tokens,
        model=str(args.model or "Llama, 2 layers, d=128, vocabulary 2,048"),
    )


if __name__ == "__main__":
    main()
