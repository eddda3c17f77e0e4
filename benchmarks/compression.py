"""Smaller models of the recipe's PPO model: students, weights of eight bits, pruned weights.

The teacher is what `textenv recipe --size large --budget 0.6` makes with PPO. Students have under a
quarter of its parameters and its vocabulary, begin with new weights, and read as much text as it
did. Judge and prompts are the recipe's: AFINN, and openings of held-out sentences.

- SFT: pretrained on the text, then fine-tuned on answers of the teacher, which are sampled once.
- text: learns the teacher's distributions on the text (temperature 2).
- on-policy: the one before, and then `GKD` on its own answers.
- pruned: half of the teacher's weights inside the layers are zeros.

Size is that of the weights in memory. The KL to the teacher is that of a token in the model's own
answers. Speed is tokens of answers a second of processor time, 96 and 1 at a time, as a ratio to
the teacher's, interleaved. Students are kept in the folder.

Run: taskset -c 0 python -m benchmarks.compression --threads 1 [--folder FOLDER]
"""

import copy
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from agents import GKD, Collector, Learner, Trainer, losses
from agents.evaluation import bootstrap_interval, perplexity
from agents.feedback import sample_answers
from agents.jobs.recipe.pipeline import Recipe
from agents.jobs.recipe.settings import Settings
from agents.jobs.recipe.staged import some
from agents.optimisation.distilling import divergences
from agents.optimisation.settings import falling
from agents.runs.stages import Stages
from agents.supervised import Example, pretraining_steps, sft_steps
from agents.supervised.distillation import distillation_steps
from agents.supervised.pretraining import steps_of_tokens
from benchmarks.common import command_line, interleaved, ratio, report
from policies import Policy, TransformerConfig, TransformerPolicy, generate_tokens
from policies.compression import bytes_of, int8, products, pruned
from textenv.tokenizers import encode_prompt

STUDENT = {"n_layer": 2, "n_head": 4, "n_embd": 76}
ANSWERS = 3000
"""Answers of the teacher for SFT."""
OWN_TOKENS = 150_000
"""Tokens of the student's answers in on-policy distillation."""
BETA = 0.5


def new_student(recipe: Recipe, seed: int) -> TransformerPolicy:
    """A network that knows nothing."""
    vocabulary = recipe.vocabulary()
    shape = TransformerConfig(vocabulary.vocab_size, recipe.settings.context, **STUDENT)
    return TransformerPolicy(shape, tokenizer=vocabulary, seed=seed)


def by_answers(recipe: Recipe, teacher: Policy, seed: int) -> TransformerPolicy:
    """Pretrained on the text, fine-tuned on the teacher's answers to training prompts."""
    s, student = recipe.settings, new_student(recipe, seed)
    for _ in pretraining_steps(
        student,
        recipe.stream("training"),
        total_tokens=s.pretrain_tokens,
        window=s.context,
        batch_size=s.pretrain_batch,
        learning_rate=s.pretrain_rate,
        seed=seed,
    ):
        pass
    prompts = some(recipe.training_prompts, ANSWERS, seed)
    # At 1: what is learned from answers at 0.8 and sampled at 0.8 would be sharpened twice.
    answers = sample_answers(
        teacher, prompts, 1, max_new_tokens=s.max_new_tokens, temperature=1.0, seed=seed
    )
    examples = [
        Example(((prompt, False), (answer, True)))
        for prompt, (answer,) in zip(prompts, answers, strict=True)
        if answer
    ]
    for _ in sft_steps(student, examples, epochs=3, learning_rate=1e-3, seed=seed):
        pass
    return student


def by_text(recipe: Recipe, teacher: Policy, seed: int) -> TransformerPolicy:
    """Has the teacher's distributions on the text."""
    s, student = recipe.settings, new_student(recipe, seed)
    for _ in distillation_steps(
        teacher,
        student,
        recipe.stream("training"),
        steps=steps_of_tokens(s.pretrain_tokens, s.context, s.pretrain_batch),
        window=s.context,
        batch_size=s.pretrain_batch,
        learning_rate=s.pretrain_rate,
        weight_decay=0.1,
        seed=seed,
    ):
        pass
    return student


def on_policy(
    recipe: Recipe,
    teacher: TransformerPolicy,
    student: TransformerPolicy,
    seed: int,
    beta: float = BETA,
    tokens: int = OWN_TOKENS,
    rate: float = 1e-3,
) -> TransformerPolicy:
    """Learns what the teacher would do in the student's own answers to training prompts."""
    s = recipe.settings
    learner = Learner(
        student,
        recipe.environment(
            student, lambda episodes: [0.0] * len(episodes), recipe.training_prompts
        ),
        GKD(beta=beta, n_epochs=2, minibatch_tokens=512),
        reference=teacher,
        learning_rate=partial(falling, rate),
        n_steps=s.max_new_tokens,
        temperature=s.temperature,
        seed=seed,
    )
    for update in learner.updates(tokens):
        if update.number % 10 == 0:
            print(update.number, update.metrics["divergence"], update.kl, file=sys.stderr)
    return student


def judged(recipe: Recipe, policy: Policy) -> list[float]:
    """The judge's score of one answer to each held-out prompt."""
    s = recipe.settings
    prompts = [prompt.text for prompt in recipe.evaluation_prompts()]
    answers = sample_answers(
        policy, prompts, 4, max_new_tokens=s.max_new_tokens, temperature=s.temperature, seed=5
    )
    judge = recipe.language.judge
    return [
        statistics.mean(judge(prompt, answer) for answer in some_answers)
        for prompt, some_answers in zip(prompts, answers, strict=True)
    ]


def rate_of(policy: Policy, ids: Sequence[Sequence[int]], rows: int, length: int) -> Any:
    """Tokens of answers a second of processor time, `rows` answers at a time."""

    def run() -> float:
        begin, tokens = time.process_time(), 0
        for first in range(0, len(ids), rows):
            some_ids = ids[first : first + rows]
            found = generate_tokens(policy, some_ids, length, generator=np.random.default_rng(0))
            tokens += sum(map(len, found))
        return tokens / (time.process_time() - begin)

    return run


@torch.no_grad()
def kl_to(recipe: Recipe, teacher: Policy, policy: TransformerPolicy) -> float:
    """KL(policy || teacher) of a token in the policy's own answers, in nats, by whole laws."""
    s = recipe.settings
    prompts = [prompt.text for prompt in recipe.evaluation_prompts()]
    envs = recipe.environment(policy, lambda episodes: [0.0] * len(episodes), prompts)
    rollout = Collector(policy, envs, s.temperature, seed=6).collect_steps(4 * s.max_new_tokens)
    trainer = Trainer(new_student(recipe, 0), GKD(), reference=teacher, temperature=s.temperature)
    trainer.policy = policy  # which may be frozen: nothing is trained
    _, found = divergences(trainer, rollout, 1.0)
    return float(losses.masked_mean(found, rollout.mask))


def rows_of(
    recipe: Recipe, models: dict[str, Policy], seconds: dict[str, float], repeats: int
) -> list[dict[str, Any]]:
    """The table."""
    s = recipe.settings
    ids = [encode_prompt(recipe.vocabulary(), p.text) for p in recipe.evaluation_prompts()[:96]]
    many, one = (
        interleaved(
            {n: rate_of(policy, asked, rows, s.max_new_tokens) for n, policy in models.items()},
            repeats,
        )
        for asked, rows in ((ids, 96), (ids[:8], 1))
    )
    text = recipe.stream("held_out")
    of_teacher, rows = np.array(judged(recipe, models["teacher"])), []
    for name, policy in models.items():
        scores = np.array(judged(recipe, policy))
        low, high = share_of_means(scores, of_teacher)
        rows.append(
            {
                "model": name,
                "parameters": sum(p.numel() for p in policy.parameters()),
                "MB": bytes_of(policy) / 1e6,
                "judge": f"{bootstrap_interval(scores)}",
                "share of the teacher's": f"{scores.mean() / of_teacher.mean():.2f} "
                f"[{low:.2f}, {high:.2f}]",
                "perplexity": perplexity(policy, text),
                "KL to the teacher": kl_to(recipe, models["teacher"], policy),
                "speed, 96 rows": ratio(many, name, "teacher"),
                "speed, 1 row": ratio(one, name, "teacher"),
                "seconds": seconds.get(name, 0.0),
            }
        )
        print(rows[-1], file=sys.stderr)
    return rows


def share_of_means(scores: Any, of_teacher: Any, draws: int = 2000) -> tuple[float, float]:
    """A bootstrap interval, over prompts, of the ratio of two means."""
    picked = np.random.default_rng(0).integers(len(scores), size=(draws, len(scores)))
    shares = scores[picked].mean(1) / of_teacher[picked].mean(1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Make the teacher and all that is smaller, and compare them."""
    parser = command_line(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/compression"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = Settings("en", "large", arguments.seed).scaled(0.6)
    name = f"en-large-{arguments.seed}"
    recipe = Recipe(settings, arguments.folder / name, Stages(Console(stderr=True)))
    teacher, seed = recipe.ppo("ppo"), arguments.seed
    models: dict[str, Policy] = {"teacher": teacher}
    seconds: dict[str, float] = {}

    def add(name: str, make: Any) -> Any:
        begin = time.process_time()
        models[name] = made = make()
        seconds[name] = time.process_time() - begin
        return made

    def kept(name: str, make: Any) -> Any:
        """A student of an earlier run with this folder, or a new one."""
        folder = arguments.folder / f"{name}-{seed}"
        if not folder.exists():
            make().save(folder)
        return TransformerPolicy.load(folder)

    add(
        "student, SFT on the teacher's answers",
        lambda: kept("sft", lambda: by_answers(recipe, teacher, seed)),
    )
    read = add(
        "student, distilled on text", lambda: kept("text", lambda: by_text(recipe, teacher, seed))
    )
    student = copy.deepcopy(read)
    add(
        "the same, on-policy",
        lambda: kept("own", lambda: on_policy(recipe, teacher, student, seed)),
    )
    add("int8 weights", lambda: int8(teacher))
    add("int8 products", lambda: int8(teacher, products))
    for share in (0.25, 0.5):
        add(f"pruned, {share:.0%}", lambda share=share: pruned(teacher, share))
    report("compression", rows_of(recipe, models, seconds, arguments.repeats), seed=seed)


if __name__ == "__main__":
    main()
