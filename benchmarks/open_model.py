"""All stages on an open model: SmolLM2-135M-Instruct and the human preferences of hh-rlhf.

    reward model: the model as it is with a head on pairs, cross-validated beside a bag of words
    SFT:          LoRA on the chosen dialogues
    DPO:          the adapter goes on with pairs
    PPO:          the adapter goes on against the reward model of the first fold

All talk in the model's own chat template. The prompts are in four folds. The reward model is
trained four times, each time without one of them, and is examined on that one: every pair is held
out once. The policies, and the reward model that they are trained and measured with, have not seen
the first fold, from whose prompts the answers at the end are.

The reward model trains its head alone, since then the model reads every pair once for all folds.
The result of a stage is kept in the folder; run the same command again to go on.

Run: taskset -c 0 python -m benchmarks.open_model MODEL harmless-base-test.jsonl.gz --out FOLDER
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from agents import DPO, PPO, Learner
from agents.evaluation import bootstrap_interval, evaluate
from agents.feedback import (
    DirectPreferences,
    Ranking,
    read_rankings,
)
from agents.jobs.begin import with_lora
from agents.optimisation.settings import falling
from agents.supervised import Example, sft_steps
from benchmarks.common import command_line, report
from benchmarks.reward_model import bag_of_words
from policies import HuggingFacePolicy, Policy, RewardModel, load_policy
from textenv import ListPrompts, Prompt, TextVectorEnv
from textenv.frames import Frame, ModelTemplate, load_frame

CONTEXT, FOLDS, RANK, DECAY = 256, 4, 8, 0.25
LONGEST_PROMPT, LONGEST_DIALOGUE, ANSWER = 96, 128, 20
EXAMPLES, PAIRS, ASKED = 240, 576, 192
BF16 = torch.bfloat16
STAGES = ("reward_model", "sft", "dpo", "ppo")


def folds_of(rankings: Sequence[Ranking]) -> NDArray[np.int64]:
    """The fold of each ranking; no prompt is in two."""
    prompts = list(dict.fromkeys(ranking.prompt for ranking in rankings))
    number = dict(zip(prompts, np.random.default_rng(0).permutation(len(prompts)), strict=True))
    return np.array([number[ranking.prompt] % FOLDS for ranking in rankings])


# -------------------------------------------------------------------- the reward model


def fitting(ranking: Ranking, frame: Frame) -> Ranking:
    """The ranking as a dialogue without its oldest turns, if the context is too short for them."""
    dialogue = ranking.as_dialogue()
    longest = max(len(frame.answer(answer)) for answer in dialogue.answers)
    said = list(dialogue.asked)
    while len(frame.opening(said)) + longest > CONTEXT:
        later = (n for n, one in enumerate(said) if n and one["role"] == "user")
        if (begin := next(later, None)) is None:
            break  # the reward model drops the beginning
        said = said[begin:]
    return replace(dialogue, messages=tuple(said))


@torch.no_grad()
def last_states(model: RewardModel, dialogues: Sequence[Ranking]) -> NDArray[np.float32]:
    """What the head of the reward model reads of both answers, (pairs, 2, n_embd)."""
    rows = [model.encode([d.asked] * 2, d.answers) for d in dialogues]
    states = np.zeros((len(rows), 2, model.trunk.value_head.in_features), dtype=np.float32)
    # Pairs of like length go together; a pair's prompt is read once.
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
    for begin in range(0, len(order), 8):
        some = order[begin : begin + 8]
        with torch.autocast("cpu", torch.bfloat16):
            read = model.trunk.read(model.pad([ids for i in some for ids in rows[i]]))
        states[some] = read.float().numpy().reshape(len(some), 2, -1)
        if begin % 400 == 0:
            print(f"  {begin} pairs read", flush=True)
    return states


def fitted_head(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """The head that orders pairs best, by the pairwise loss with weight decay; (n_embd,).

    The loss is -log sigmoid(better - worse), which is logistic regression on the differences.
    """
    scale = differences.std(0) + 1e-6
    sign = np.where(np.arange(len(differences)) % 2, 1, -1)  # so that both classes are there
    model = LogisticRegression(C=1 / (DECAY * len(differences)), fit_intercept=False)
    model.fit(differences / scale * sign[:, None], sign)
    return np.asarray(model.coef_[0] / scale)


def cross_validate(name: str, rankings: Sequence[Ranking], out: Path) -> dict[str, Any]:
    """Examine the reward model on every pair once; that of the first fold is kept in `out`."""
    policy = HuggingFacePolicy.from_pretrained(name, context=CONTEXT)
    model = RewardModel(policy, ModelTemplate.of(policy.transformers_tokenizer))
    dialogues = [fitting(ranking, model.frame) for ranking in rankings]
    folds, kept = folds_of(rankings), out.parent / "states.npy"
    if not kept.exists():
        np.save(kept, last_states(model, dialogues))
    states = np.load(kept).astype(np.float64)
    differences = states[:, 0] - states[:, 1]
    right, words = np.zeros(len(rankings)), np.zeros(len(rankings))
    for fold in range(FOLDS):
        learned, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        head = fitted_head(differences[learned])
        margins = differences[held_out] @ head
        right[held_out] = (margins > 0) + 0.5 * (margins == 0)
        words[held_out] = bag_of_words(
            *([rankings[i] for i in part] for part in (learned, held_out))
        )
        if fold == 0:
            zero = states[learned, 0].mean(0) @ head  # the mean score of better answers is 0
            with torch.no_grad():
                policy.value_head.weight.copy_(torch.tensor(head[None]))
                policy.value_head.bias.fill_(-zero)
            some = [dialogues[i] for i in held_out[:8]]
            scores = model.score_texts([d.asked for d in some], [d.answers[0] for d in some])
            agree = np.corrcoef(scores, states[held_out[:8], 0] @ head)[0, 1]
    model.save(out)
    return {
        "pairs": len(rankings),
        "reward model": bootstrap_interval(right)._asdict(),
        "bag of words": bootstrap_interval(words)._asdict(),
        "difference": bootstrap_interval(right - words)._asdict(),
        "folds": [[float(x[folds == f].mean()) for x in (right, words)] for f in range(FOLDS)],
        "scores in fp32 against those of the states": float(agree),
    }


# -------------------------------------------------------------------- the policies


def prompts_of(rankings: Sequence[Ranking], policy: Policy) -> list[Prompt]:
    """What is asked, as messages; what is longer than `LONGEST_PROMPT` tokens is left out."""
    frame = load_frame("chat", policy.tokenizer)
    asked = [list(ranking.as_dialogue().asked) for ranking in rankings]
    short = [said for said in asked if len(frame.opening(said)) <= LONGEST_PROMPT]
    return [Prompt("", messages=said) for said in short]


def fine_tuned(name: str, rankings: Sequence[Ranking], *, learning_rate: float) -> Any:
    """SFT on the chosen dialogues."""
    policy = HuggingFacePolicy.from_pretrained(name, context=CONTEXT)
    with_lora(policy, RANK, 0, name)
    frame = load_frame("chat", policy.tokenizer)
    dialogues = _short(rankings, frame)[:EXAMPLES]
    examples = [Example((), frame, (*d.asked, _answer(d.answers[0]))) for d in dialogues]
    steps = sft_steps(policy, examples, learning_rate=learning_rate, precision=BF16)
    losses = [step.loss for step in steps]
    return policy, {"examples": len(examples), "loss": [losses[0], float(np.mean(losses[-10:]))]}


def _short(rankings: Sequence[Ranking], frame: Frame) -> list[Ranking]:
    """Dialogues that are not long: they teach the same in less time."""

    def length(one: Ranking) -> int:
        return len(frame.opening(one.asked)) + max(len(frame.answer(a)) for a in one.answers)

    dialogues = [ranking.as_dialogue() for ranking in rankings]
    return [one for one in dialogues if length(one) <= LONGEST_DIALOGUE]


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def by_dpo(policy: Any, rankings: Sequence[Ranking], *, learning_rate: float) -> Any:
    """DPO on pairs."""
    frame = load_frame("chat", policy.tokenizer)
    pairs = _short(rankings, frame)[:PAIRS]
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
    parser.add_argument("--sft-rate", type=float, default=5e-4)
    parser.add_argument("--dpo-rate", type=float, default=6e-4)
    parser.add_argument("--ppo-rate", type=float, default=1e-3)
    parser.add_argument("--ppo-tokens", type=int, default=7_500)
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
        lambda folder: cross_validate(args.model, rankings, folder),
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
        examine(out, held_out)


def examine(out: Path, held_out: Sequence[Ranking]) -> None:
    """Let every policy answer the held-out prompts, and measure the answers."""
    model = RewardModel.load(out / "reward_model")
    reference: Any = load_policy(out / "sft")
    asked = prompts_of(held_out, reference)[:ASKED]
    envs = environment(reference, asked, model)
    rows, samples, scores = [], {}, {}
    for policy_name in ("sft", "dpo", "ppo"):
        policy = load_policy(out / policy_name)
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
