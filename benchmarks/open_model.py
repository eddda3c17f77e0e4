"""All stages on an open model: SmolLM2-135M-Instruct and the human preferences of hh-rlhf.

    reward model: the last layers and a fresh head, on pairs; cross-validated beside a bag of words
    SFT:          LoRA on the chosen dialogues
    DPO:          the adapter goes on with pairs
    PPO:          the adapter goes on against the reward model of the first fold

All talk in the model's own chat template. The prompts are in four folds. The reward model is
trained four times, each time without one of them, and is examined on that one: every pair is held
out once. The policies, and the reward model that they are trained and measured with, have not seen
the first fold, from whose prompts the answers at the end are.

The layers below those that the reward model trains are read once for all folds, since they stay as
they are. The result of a stage is kept in the folder; run the same command again to go on.

Run: taskset -c 0 python -m benchmarks.open_model MODEL harmless-base-test.jsonl.gz --out FOLDER
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agents import DPO, PPO, Learner
from agents.evaluation import bootstrap_interval, evaluate
from agents.feedback import (
    DirectPreferences,
    Ranking,
    normalise,
    read_rankings,
    reward_model_steps,
)
from agents.jobs.begin import with_lora
from agents.optimisation.settings import falling
from agents.supervised import Example, sft_steps
from benchmarks.common import command_line, report
from benchmarks.reward_model import bag_of_words
from policies import HuggingFacePolicy, Policy, RewardModel, load_policy
from policies.sharing import share_beginnings
from textenv import ListPrompts, Prompt, TextVectorEnv
from textenv.frames import ModelTemplate, load_frame

CONTEXT, FOLDS, TRAINED_LAYERS, RANK = 192, 4, 4, 8
LONGEST_PROMPT, ANSWER = 128, 24
ASKED = 96
BF16 = torch.bfloat16
STAGES = ("reward_model", "sft", "dpo", "ppo")


def folds_of(rankings: Sequence[Ranking]) -> NDArray[np.int64]:
    """The fold of each ranking; no prompt is in two."""
    prompts = list(dict.fromkeys(ranking.prompt for ranking in rankings))
    number = dict(zip(prompts, np.random.default_rng(0).permutation(len(prompts)), strict=True))
    return np.array([number[ranking.prompt] % FOLDS for ranking in rankings])


# -------------------------------------------------------------------- the reward model


class ReadOnce(RewardModel):
    """A reward model that goes on from states of its lower layers instead of from tokens.

    An id stands for one state, that of a token behind all that stands before it. Answers to one
    prompt have their first ids in common, so it is still read once.
    """

    ids: dict[tuple[Any, str], list[int]]

    def encode(self, prompts: Iterable[Any], answers: Iterable[str]) -> list[list[int]]:
        """Numbers of the states of each prompt with its answer."""
        return [self.ids[_key(p), a] for p, a in zip(prompts, answers, strict=True)]


def _key(asked: Any) -> str:
    return asked if isinstance(asked, str) else json.dumps([dict(one) for one in asked])


@torch.no_grad()
def lower_states(
    name: str, dialogues: Sequence[Ranking]
) -> tuple[torch.Tensor, dict[tuple[Any, str], list[int]]]:
    """States behind the layers that stay as they are, (N, n_embd), and their numbers."""
    policy = HuggingFacePolicy.from_pretrained(name, context=CONTEXT)
    model = RewardModel(policy, ModelTemplate.of(policy.transformers_tokenizer))
    decoder = policy.decoder
    decoder.layers = decoder.layers[: len(decoder.layers) - TRAINED_LAYERS]
    decoder.norm = nn.Identity()
    rows = [model.encode([r.asked] * len(r.answers), r.answers) for r in dialogues]
    # Pairs of like length go together.
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
    states, ids, count = [], {}, 0
    for begin in range(0, len(order), 8):
        of = [(i, j) for i in order[begin : begin + 8] for j in range(len(rows[i]))]
        tokens = model.pad([rows[i][j] for i, j in of])
        lengths = torch.tensor([len(rows[i][j]) for i, j in of])
        shared = share_beginnings(tokens, lengths)
        with torch.autocast("cpu", BF16):
            states.append(policy._read_rows(tokens.flatten()[shared.places], shared).clone())
        for row, (i, j) in enumerate(of):
            number = shared.index[row, : lengths[row]] + count
            ids[_key(dialogues[i].asked), dialogues[i].answers[j]] = number.tolist()
        count += len(shared.places)
        if begin % 400 == 0:
            print(f"  {begin} pairs, {count} tokens", flush=True)
    return torch.cat(states), ids


def upper_part(name: str, states: torch.Tensor) -> HuggingFacePolicy:
    """The layers that are trained, on a table of states instead of token embeddings."""
    policy = HuggingFacePolicy.from_pretrained(name, context=CONTEXT)
    decoder = policy.decoder
    decoder.layers = decoder.layers[-TRAINED_LAYERS:]
    decoder.embed_tokens = nn.Embedding.from_pretrained(states)
    policy.vocab_size = policy.pad_token = len(states)
    policy.requires_grad_(False)
    for part in (decoder.layers, decoder.norm, policy.value_head):
        part.requires_grad_(True)
    return policy


def trained_weights(policy: HuggingFacePolicy) -> list[dict[str, torch.Tensor]]:
    """Copies of the weights of a reward model that are trained."""
    parts = (policy.decoder.layers[-TRAINED_LAYERS:], policy.decoder.norm, policy.value_head)
    return [{n: v.clone() for n, v in part.state_dict().items()} for part in parts]


def put(policy: HuggingFacePolicy, weights: Sequence[dict[str, torch.Tensor]]) -> None:
    """Give a policy the weights that `trained_weights` copied."""
    parts = (policy.decoder.layers[-TRAINED_LAYERS:], policy.decoder.norm, policy.value_head)
    for part, values in zip(parts, weights, strict=True):
        part.load_state_dict(values)


def cross_validate(
    name: str, rankings: Sequence[Ranking], out: Path, *, learning_rate: float, epochs: int
) -> dict[str, Any]:
    """Examine the reward model on every pair once; that of the first fold is kept in `out`."""
    dialogues = [ranking.as_dialogue() for ranking in rankings]
    folds = folds_of(rankings)
    begin = time.perf_counter()
    kept_states = out.parent / "states.pt"  # for another learning rate
    if not kept_states.exists():
        torch.save(lower_states(name, dialogues), kept_states)
    states, ids = torch.load(kept_states, weights_only=True)
    seconds = {"lower layers": time.perf_counter() - begin}
    policy = upper_part(name, states)
    first = trained_weights(policy)
    right, words = np.zeros(len(rankings)), np.zeros(len(rankings))
    begin = time.perf_counter()
    for fold in range(FOLDS):
        put(policy, first)
        model = ReadOnce.with_fresh_head(policy)
        model.ids = ids
        learned = [d for d, f in zip(dialogues, folds, strict=True) if f != fold]
        steps = reward_model_steps(
            model, learned, epochs=epochs, learning_rate=learning_rate, precision=BF16, seed=fold
        )
        shown = []
        for step in steps:
            shown.append((step.loss, step.accuracy))
            if step.number % 20 == 0:
                loss, accuracy = np.mean(shown[-20:], axis=0)
                print(f"  step {step.number}: {loss:.3f} {accuracy:.3f}", flush=True)
        held_out = np.flatnonzero(folds == fold)
        asked = [dialogues[i].asked for i in held_out for _ in range(2)]
        scores = model.score_texts(asked, [a for i in held_out for a in dialogues[i].answers])
        margins = scores[0::2] - scores[1::2]
        right[held_out] = (margins > 0) + 0.5 * (margins == 0)
        words[held_out] = bag_of_words(
            [r for r, f in zip(rankings, folds, strict=True) if f != fold],
            [rankings[i] for i in held_out],
        )
        late = np.mean(shown[-20:], axis=0)
        np.save(out.parent / "right.npy", np.stack([right, words]))
        print(
            f"  fold {fold}: training loss {late[0]:.3f}, accuracy {late[1]:.3f}; held out "
            f"{right[held_out].mean():.3f}, a bag of words {words[held_out].mean():.3f}",
            flush=True,
        )
        if fold == 0:
            kept = trained_weights(policy), margins
    seconds["folds"] = time.perf_counter() - begin
    whole = HuggingFacePolicy.from_pretrained(name, context=CONTEXT)
    put(whole, kept[0])
    model = RewardModel(whole, ModelTemplate.of(whole.transformers_tokenizer))
    some = np.flatnonzero(folds == 0)[:16]
    asked = [dialogues[i].asked for i in some for _ in range(2)]
    scores = model.score_texts(asked, [a for i in some for a in dialogues[i].answers])
    agree = np.corrcoef(scores[0::2] - scores[1::2], kept[1][:16])[0, 1]
    chosen = [d for d, f in zip(dialogues, folds, strict=True) if f != 0][:128]
    normalise(model, [d.asked for d in chosen], [d.answers[0] for d in chosen])
    model.save(out)
    return {
        "pairs": len(rankings),
        "reward model": bootstrap_interval(right)._asdict(),
        "bag of words": bootstrap_interval(words)._asdict(),
        "difference": bootstrap_interval(right - words)._asdict(),
        "folds": [[float(x[folds == f].mean()) for x in (right, words)] for f in range(FOLDS)],
        "whole model and states agree": float(agree),
        "seconds": seconds,
    }


# -------------------------------------------------------------------- the policies


def prompts_of(rankings: Sequence[Ranking], policy: Policy) -> list[Prompt]:
    """What is asked, as messages; what is longer than `LONGEST_PROMPT` tokens is left out."""
    frame = load_frame("chat", policy.tokenizer)
    asked = [list(ranking.as_dialogue().asked) for ranking in rankings]
    fitting = [said for said in asked if len(frame.opening(said)) <= LONGEST_PROMPT]
    return [Prompt("", messages=said) for said in fitting]


def fine_tuned(name: str, rankings: Sequence[Ranking], *, learning_rate: float) -> Any:
    """SFT on the chosen dialogues that the context holds as a whole."""
    policy = HuggingFacePolicy.from_pretrained(name, context=CONTEXT)
    with_lora(policy, RANK, 0, name)
    frame = load_frame("chat", policy.tokenizer)
    dialogues = [ranking.as_dialogue() for ranking in rankings]
    examples = [Example((), frame, (*d.asked, _answer(d.answers[0]))) for d in dialogues]
    whole = [e for e in examples if len(e.encode(policy.tokenizer, CONTEXT)[0]) <= CONTEXT]
    steps = sft_steps(policy, whole[:480], learning_rate=learning_rate, precision=BF16)
    losses = [step.loss for step in steps]
    return policy, {"examples": len(whole[:480]), "loss": [losses[0], float(np.mean(losses[-10:]))]}


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def by_dpo(policy: Any, rankings: Sequence[Ranking], *, learning_rate: float) -> Any:
    """DPO on pairs that the context holds as a whole."""
    frame = load_frame("chat", policy.tokenizer)
    dialogues = [ranking.as_dialogue() for ranking in rankings]
    room = CONTEXT - 2

    def length(one: Ranking) -> int:
        return len(frame.opening(one.asked)) + max(len(frame.answer(a)) for a in one.answers)

    pairs = [one for one in dialogues if length(one) <= room][:384]
    direct = DirectPreferences(
        policy,
        policy.frozen_copy(),
        DPO(beta=0.1),
        frame=frame,
        learning_rate=learning_rate,
        precision=BF16,
    )
    shown = [(step.loss, step.accuracy) for step in direct.steps(pairs)]
    late = np.mean(shown[-10:], axis=0)
    return policy, {"pairs": len(pairs), "loss": float(late[0]), "accuracy": float(late[1])}


def environment(policy: Any, prompts: Sequence[Prompt], model: RewardModel) -> TextVectorEnv:
    """Where the policies answer."""
    return TextVectorEnv(
        64,
        prompts=ListPrompts(prompts),
        reward=model,
        frame="chat",
        tokenizer=policy.tokenizer,
        max_prompt_tokens=LONGEST_PROMPT,
        max_new_tokens=ANSWER,
        group_size=4,  # four answers share a prompt, which is read once
    )


def by_ppo(
    policy: Any,
    prompts: Sequence[Prompt],
    model: RewardModel,
    *,
    tokens: int,
    learning_rate: float,
    kl_coef: float,
) -> Any:
    """PPO against the reward model, with a KL penalty to where it began."""
    learner = Learner(
        policy,
        environment(policy, prompts, model),
        PPO(n_epochs=2, minibatch_tokens=512, value_coef=0.01),
        reference=policy.frozen_copy(),
        kl_coef=kl_coef,
        learning_rate=partial(falling, learning_rate),
        n_episodes=64,
        precision="bfloat16",
    )
    shown = []
    for update in learner.updates(tokens):
        shown.append({"tokens": update.tokens, "score": update.score, "kl": update.kl})
        print(
            f"  {update.tokens:6d} tokens  score {update.score:6.3f}  KL {update.kl:.4f} a token",
            flush=True,
        )
    return policy, {"updates": shown}


# -------------------------------------------------------------------- all of it


def main() -> None:
    """Every stage that is not in the folder yet, then the tables."""
    parser = command_line(__doc__)
    parser.add_argument("model")
    parser.add_argument("preferences", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stages", nargs="+", default=[*STAGES, "examination"])
    parser.add_argument("--reward-rate", type=float, default=1e-4)
    parser.add_argument("--reward-epochs", type=int, default=1)
    parser.add_argument("--sft-rate", type=float, default=5e-4)
    parser.add_argument("--dpo-rate", type=float, default=3e-4)
    parser.add_argument("--ppo-rate", type=float, default=1e-3)
    parser.add_argument("--ppo-tokens", type=int, default=15_000)
    parser.add_argument("--kl-coef", type=float, default=0.05)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rankings = read_rankings(args.preferences)
    folds = folds_of(rankings)
    learned = [r for r, f in zip(rankings, folds, strict=True) if f != 0]
    held_out = [r for r, f in zip(rankings, folds, strict=True) if f == 0]
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)

    def stage(name: str, make: Callable[[Path], dict[str, Any]]) -> None:
        numbers = out / f"{name}.json"
        if name not in args.stages or numbers.exists():
            return
        print(name, flush=True)
        begin = time.perf_counter()
        made = make(out / name)
        made["seconds in all"] = time.perf_counter() - begin
        numbers.write_text(json.dumps(made, indent=2), encoding="utf-8")
        print(json.dumps({k: v for k, v in made.items() if k != "updates"}), flush=True)

    def policy_stage(name: str, make: Callable[[], Any]) -> None:
        def run(folder: Path) -> dict[str, Any]:
            policy, numbers = make()
            policy.save(folder)
            return dict(numbers)

        stage(name, run)

    stage(
        "reward_model",
        lambda folder: cross_validate(
            args.model,
            rankings,
            folder,
            learning_rate=args.reward_rate,
            epochs=args.reward_epochs,
        ),
    )
    policy_stage("sft", lambda: fine_tuned(args.model, learned, learning_rate=args.sft_rate))
    policy_stage(
        "dpo", lambda: by_dpo(load_policy(out / "sft"), learned, learning_rate=args.dpo_rate)
    )

    def ppo() -> Any:
        policy = load_policy(out / "sft")
        return by_ppo(
            policy,
            prompts_of(learned, policy),
            RewardModel.load(out / "reward_model"),
            tokens=args.ppo_tokens,
            learning_rate=args.ppo_rate,
            kl_coef=args.kl_coef,
        )

    policy_stage("ppo", ppo)
    if "examination" in args.stages:
        examine(args.model, out, held_out)


def examine(name: str, out: Path, held_out: Sequence[Ranking]) -> None:
    """Let every policy answer the held-out prompts, and measure the answers."""
    model = RewardModel.load(out / "reward_model")
    reference: Any = load_policy(out / "sft")
    asked = prompts_of(held_out, reference)[:ASKED]
    envs = environment(reference, asked, model)
    rows, samples, scores = [], {}, {}
    for policy_name in ("model", "sft", "dpo", "ppo"):
        policy: Any = (
            HuggingFacePolicy.from_pretrained(name, context=CONTEXT)
            if policy_name == "model"
            else load_policy(out / policy_name)
        )
        found = evaluate(policy, envs, asked, reference=reference)
        scores[policy_name] = found.scores
        samples[policy_name] = [asdict(sample) for sample in found.samples]
        rows.append(
            {
                "policy": policy_name,
                "score": str(bootstrap_interval(found.scores)),
                "KL an answer": found.kl_per_answer,
                "tokens": found.tokens_per_answer,
            }
        )
    for row in rows:
        gain = scores[row["policy"]] - scores["sft"]
        row["over SFT"] = str(bootstrap_interval(gain))
    (out / "samples.json").write_text(
        json.dumps(samples, indent=1, default=str, ensure_ascii=False), encoding="utf-8"
    )
    stages = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in out.glob("*.json")}
    stages.pop("samples", None)
    report("open_model", rows, asked=len(asked), stages=stages)


if __name__ == "__main__":
    main()
