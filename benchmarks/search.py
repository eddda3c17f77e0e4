"""Search over the beginnings of answers: planted trees, arithmetic, and expert iteration.

Trees: 4 letters and a stop token, at most 8 of them, 87,381 answers. Each letter behind each
beginning has a value of its own, from a normal distribution whose standard deviation is 1 for the
first letter and falls by `FALL` with each. An answer earns the sum along its way, and the best of
all answers is listed. The policy is an untrained network, nearly uniform: it knows
nothing of all this. Beside the searches stand best of n, with as many scored answers as MCTS had,
all different; and the greedy way, which takes the letter of the largest value at every step.

Arithmetic: held-out problems of `benchmarks.arithmetic_task` and a policy that answers one in nine
of them. The reward, 1 for the right number, is asked by the search itself. Every method gets the
same reward calls in one table, the same encoded tokens in the other.

Expert iteration: the task of `benchmarks.exact`. The limit of the regularised target is that of a
table of probabilities that is set to the target at every update. With visit counts such a table
ends at one answer alone, and any answer is a limit: a move whose probability is below one in as
many visits is not looked at. The run, a network that learns the targets, is compared with the one
that it comes to.

Run: python -m benchmarks.search --threads 1
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents import Learner
from agents.evaluation.intervals import bootstrap_interval
from agents.search import (
    MCTS,
    BestFirst,
    BestOf,
    Budget,
    ByContinuations,
    BySegment,
    ByToken,
    ExpertIteration,
    Regularised,
    Search,
    SearchCollector,
    search,
    visit_counts,
)
from agents.search.expert_iteration import Target
from benchmarks.arithmetic_task import environment, fine_tuned, problems
from benchmarks.common import command_line, report
from benchmarks.exact import ANSWERS, BETA, LETTERS, OPTIONS, Letters, answer_logprobs, make_policy
from policies import Policy, TransformerConfig, TransformerPolicy
from textenv import Prompt, TextVectorEnv
from textenv.testing import exact

DEPTH, WIDTH, FALL, EXPANSIONS = 8, 4, 0.6, 2000
TWO_EACH, COUNTS = MCTS(leaf=ByContinuations(2)), MCTS(returns=True, leaves=1)
STEPS, ENOUGH = 6, 0.12
CALLS, TOKENS = (4, 16, 64), (60, 240, 960)


class Planted:
    """A tree of answers with values along the way; see the module's docstring."""

    def __init__(self, seed: int, fall: float = FALL):
        rng = np.random.default_rng([5, seed])
        self.earned = [np.zeros(1)]
        for depth in range(1, DEPTH + 1):
            value = fall ** (depth - 1) * rng.standard_normal(WIDTH**depth)
            self.earned.append(np.repeat(self.earned[-1], WIDTH) + value)
        self.best = max(level.max() for level in self.earned)

    def reward(self, episodes: Any) -> list[float]:
        """What answers earn."""
        return [self.of(episode.tokens.tolist()) for episode in episodes]

    def of(self, tokens: list[int]) -> float:
        """What an answer earns, with its stop token or without."""
        letters = [token for token in tokens if token < WIDTH]
        place = 0
        for letter in letters:
            place = place * WIDTH + letter
        return float(self.earned[len(letters)][place])

    def greedy(self) -> float:
        """The best answer on the way that takes the largest value at every step."""
        place, found = 0, [0.0]
        for level in self.earned[1:]:
            following = level[place * WIDTH : (place + 1) * WIDTH]
            place = place * WIDTH + int(following.argmax())
            found.append(float(following.max()))
        return max(found)


def trees(count: int) -> Iterator[dict[str, Any]]:
    """In how many trees each method finds the best answer."""
    shape = TransformerConfig(WIDTH + 1, DEPTH + 1, n_layer=1, n_head=2, n_embd=32)
    policy = TransformerPolicy(shape, seed=0)
    planted = [Planted(seed) for seed in range(count)]
    calls: list[int] = []

    def found_by(how: Search, budgets: list[Budget]) -> dict[str, Any]:
        found, spent = 0, []
        for seed, (tree, budget) in enumerate(zip(planted, budgets, strict=True)):
            envs = TextVectorEnv(
                64,
                prompts=["a"],
                reward=tree.reward,
                tokenizer=Letters(WIDTH),
                max_new_tokens=DEPTH,
            )
            (one,) = search(policy, envs, [Prompt("a")], how, budget, seed=seed, rows=2048)
            found += one.score >= tree.best - 1e-9
            spent.append([one.spent.expansions, one.spent.encoded_tokens, one.spent.reward_calls])
        calls[:] = calls or [int(row[2]) for row in spent]
        expansions, tokens, scored = np.mean(spent, axis=0)
        figures = {"expansions": expansions, "encoded tokens": tokens, "reward calls": scored}
        return {"best found": f"{found} of {count}", **figures}

    same = [Budget(EXPANSIONS)] * count
    yield {"method": "MCTS", **found_by(MCTS(leaves=16), same)}
    yield {"method": "best-first", **found_by(BestFirst(leaves=16), same)}
    as_many = [Budget(None, reward_calls=n) for n in calls]
    yield {"method": "best of n", **found_by(BestOf(256), as_many)}
    greedy = sum(tree.greedy() >= tree.best - 1e-9 for tree in planted)
    nothing = {"expansions": "", "encoded tokens": "", "reward calls": ""}
    yield {"method": "greedy", "best found": f"{greedy} of {count}", **nothing}


METHODS: dict[str, Search] = {
    "best of n": BestOf(leaves=4),
    "best-first": BestFirst(branching=ByToken(4), leaves=4),
    "MCTS": MCTS(branching=ByToken(4), leaves=4),
    "MCTS, segments of 3 tokens": MCTS(branching=BySegment(3, 4), leaves=4),
}


def arithmetic(
    policy: Policy, count: int, methods: Mapping[str, Search]
) -> Iterator[dict[str, Any]]:
    """Success with its interval at equal reward calls, and at equal encoded tokens."""
    asked = problems(count, STEPS, seed=7, held_out=True)
    envs = environment(asked, STEPS, rows=count)
    prompts = [Prompt(p.prompt, {"answer": p.answer}) for p in asked]
    budgets = [Budget(None, reward_calls=n) for n in CALLS]
    budgets += [Budget(None, encoded_tokens=n) for n in TOKENS]
    for budget in budgets:
        for name, how in methods.items():
            found = search(policy, envs, prompts, how, budget, seed=1, rows=4096)
            bound = "reward calls" if budget.reward_calls else "encoded tokens"
            yield {
                "budget": f"{budget.reward_calls or budget.encoded_tokens} {bound}",
                "method": name,
                "success": str(bootstrap_interval([one.score for one in found])),
                "encoded tokens": float(np.mean([one.spent.encoded_tokens for one in found])),
                "reward calls": float(np.mean([one.spent.reward_calls for one in found])),
            }


class Table(Policy):
    """A policy whose logits stand in a table, one column for each beginning of an answer."""

    def __init__(self, begin: TransformerPolicy):
        places = ANSWERS.mask.nonzero()
        texts = {tuple(ANSWERS.tokens[row, :place]) for row, place in zip(*places, strict=True)}
        self.number = {text: n for n, text in enumerate(sorted(texts))}
        super().__init__(LETTERS + 1, ANSWERS.tokens.shape[1], n_embd=len(texts))
        assert isinstance(self.token_head, nn.Linear)
        with torch.no_grad():
            for text, n in self.number.items():
                hidden = begin.last_hidden(np.array([text]))
                self.token_head.weight[:, n] = begin.choices(hidden)[0]

    def forward(self, rows: Tensor) -> Tensor:
        """One-hot: which beginning ends at each place."""
        hidden = torch.zeros(*rows.shape, len(self.number))
        for row, ids in enumerate(rows.tolist()):
            for end in range(1, len(ids) + 1):
                if (number := self.number.get(tuple(ids[:end]))) is not None:
                    hidden[row, end - 1, number] = 1
        return hidden


def limit(learner: Learner, table: Table, updates: int) -> None:
    """Set the table to the targets of its own search, again and again."""
    assert isinstance(learner.algorithm, ExpertIteration)
    assert isinstance(table.token_head, nn.Linear)
    for _ in range(updates):
        rollout = learner.collect()
        targets = torch.from_numpy(learner.algorithm.target(rollout)).float()
        with torch.no_grad():
            for row, begin in enumerate(rollout.mask.int().argmax(1).tolist()):
                text = tuple(rollout.tokens[row, :begin].tolist())
                token = rollout.tokens[row, begin]
                table.token_head.weight[token, table.number[text]] = targets[row].clamp(1e-9).log()


SETTINGS: dict[str, tuple[Target, MCTS, Budget]] = {
    "regularised, 13 expansions (all)": (Regularised(BETA), MCTS(), Budget(13)),
    "regularised, 8 expansions": (Regularised(BETA), TWO_EACH, Budget(8)),
    "regularised, 4 expansions": (Regularised(BETA), TWO_EACH, Budget(4)),
    "visit counts, 64 visits": (visit_counts, COUNTS, Budget(None, visits=64)),
    "visit counts, 16 visits": (visit_counts, COUNTS, Budget(None, visits=16)),
}


def expert_iteration(updates: int, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """Where each target ends, and how near networks that learn it come; of the seeds the worst."""
    for name, setting in SETTINGS.items():
        runs = [ended(setting, updates, seed) for seed in seeds]
        row: dict[str, Any] = {"target": name}
        for column in runs[0]:
            values = [run[column] for run in runs]
            row[column] = f"{np.mean(values):.3f} (worst {max(values):.3f})"
            if "reward" in column:
                row[column] = float(np.mean(values))
        yield row


def ended(setting: tuple[Target, MCTS, Budget], updates: int, seed: int) -> dict[str, float]:
    """Total variations of a run and of its limit."""
    target, how, budget = setting
    start = make_policy(seed)

    def made(policy: Policy, epochs: int, **options: Any) -> Learner:
        return Learner(
            policy,
            TextVectorEnv(8, **OPTIONS),
            ExpertIteration(target=target, n_epochs=epochs),
            reference=start.frozen_copy(),
            n_episodes=8,
            seed=seed,
            collector=partial(SearchCollector, how=how, budget=budget),
            **options,
        )

    table, network = Table(start), make_policy(seed)
    limit(made(table, 1), table, 40)
    learner = made(network, 2, learning_rate=lambda done: 6e-3 * (1 - done))
    for number in range(updates):
        learner.update(number / updates)
    ends, own, reference = map(answer_logprobs, (table, network, start))
    optimum = exact.optimum(reference, ANSWERS.rewards, BETA)
    if target is visit_counts:  # one answer: the one that the run has come to
        assert np.exp(ends).max() > 0.99
        ends = np.where(np.arange(len(own)) == own.argmax(), 0.0, -np.inf)
    return {
        "limit to optimum": exact.total_variation(ends, optimum),
        "run to limit": exact.total_variation(own, ends),
        "run to optimum": exact.total_variation(own, optimum),
        "reward at the start": exact.expected_return(reference, ANSWERS.rewards),
        "reward at the end": exact.expected_return(own, ANSWERS.rewards),
    }


def main() -> None:
    """The tables."""
    parser = command_line(__doc__)
    parts = ("trees", "arithmetic", "expert-iteration")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--trees", type=int, default=50)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--updates", type=int, default=80)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if "trees" in arguments.parts:
        report("search in planted trees", trees(arguments.trees), fall=FALL)
    if "arithmetic" in arguments.parts:
        policy = fine_tuned(STEPS, enough=ENOUGH)
        rows = arithmetic(policy, arguments.problems, METHODS)
        report("search in arithmetic", rows, steps=STEPS, problems=arguments.problems)
    if "expert-iteration" in arguments.parts:
        rows = expert_iteration(arguments.updates, arguments.seeds)
        report(f"expert iteration, KL leash of {BETA}", rows, updates=arguments.updates)


if __name__ == "__main__":
    main()
