"""Searching the answers to prompts, many trees side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from agents.search.answers import SingleAnswers
from agents.search.budget import SOME, Budget, Spent
from agents.search.leaves import LeafValue
from agents.search.moves import Branching
from agents.search.reading import PrefixReader, Text
from agents.search.sampling import Continue, Sampler
from agents.search.tree import Node, Tree
from policies import Policy
from textenv import Prompt
from textenv.errors import OptionError
from textenv.seeding import keyed_generator
from textenv.starts import Start

ROWS, ROWS_A_LEAF = 256, 4
"""Beginnings that are kept encoded, of all prompts together (see `PrefixReader`), and how many of
them there are for each leaf that a step visits: more trees would drive out what others hold."""


class Search(Protocol):
    """A way to search: `MCTS`, `BestFirst` or `BestOf`."""

    @property
    def branching(self) -> Branching: ...  # noqa: D102
    @property
    def leaf(self) -> LeafValue: ...  # noqa: D102
    @property
    def leaves(self) -> int: ...  # noqa: D102
    @property
    def returns(self) -> bool: ...  # noqa: D102
    def tree(self, start: Start, prompt: Text, generator: np.random.Generator) -> Tree: ...  # noqa: D102


@dataclass(frozen=True)
class Found:
    """What the search of one prompt found.

    Attributes:
        start: The prompt, and the ids that the policy reads of it.
        answer: Ids of the best answer, a stop token included.
        text: The same in words.
        score: What it earns.
        spent: What the search has cost.
        tree: All that is known: `tree.found` has every answer that was scored.
    """

    start: Start
    answer: Text
    text: str
    score: float
    spent: Spent
    tree: Tree


def search(
    policy: Policy,
    envs: VectorEnv[Any, Any, Any],
    prompts: Sequence[Prompt],
    how: Search,
    budget: Budget = SOME,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    rows: int = ROWS,
    generators: Sequence[np.random.Generator] | None = None,
    on_answers: Callable[[int], object] = lambda count: None,
) -> list[Found]:
    """The best answer to each prompt that a search finds.

    Many trees are searched side by side, so that each pass of the policy and each
    call of the reward has many leaves. They do not see each other: but for the rounding of larger
    batches, a prompt's answer does not depend on the others.

    Args:
        policy: The policy, whose probabilities are the priors.
        envs: The environment, whose rules and reward are used; its episodes go on as they were.
        prompts: The prompts.
        how: `MCTS(...)`, `BestFirst(...)` or `BestOf(...)`.
        budget: What may be spent on each prompt.
        seed: Seed of all random numbers; each prompt has its own.
        temperature: Logits are divided by it, in priors and in samples.
        rows: Beginnings whose keys and values are kept, of all prompts together, each in the memory
            of one row of a rollout. With fewer than there are branches, some are encoded again,
            which is counted; with more, more trees are searched side by side.
        generators: Random numbers of each prompt instead of the seed's.
        on_answers: Called with the number of prompts whose search has ended.

    Raises:
        OptionError: The search would never end.
        UnmetNeedError: The environment is none of single answers, or ends them by rules of its own.
        UnscoredError: The reward gave None to an answer.
    """
    if how.returns and budget.visits is None:
        raise OptionError(
            f"{how} visits finished answers again and again, which costs nothing that {budget} "
            "bounds: give the budget visits="
        )
    rules = SingleAnswers(envs, policy)
    starts = rules.openings(prompts, seed)
    if generators is None:
        generators = [keyed_generator(seed, number) for number in range(len(starts))]
    trees = []
    for start, generator in zip(starts, generators, strict=True):
        assert start.opening is not None
        trees.append(how.tree(start, tuple(start.opening.tokens.tolist()), generator))
    width = max(len(tree.prompt) for tree in trees) + rules.max_new_tokens
    reader = PrefixReader(policy, rows, min(width, policy.context), temperature)
    visitor = Visitor(Sampler(reader, rules), rules, how)
    calls = how.leaf.continuations + how.leaf.stops
    each = ROWS_A_LEAF * how.leaves * max(how.leaf.continuations, 1)
    together = max(rows // each, 1)
    going, waiting = trees[:together], trees[together:]
    while going:
        batch = []
        for tree in going:
            count = min(how.leaves, budget.left(tree.spent, calls))
            before = tree.spent.visits
            leaves = tree.select(count) if count else []
            batch.append((tree, leaves, tree.spent.visits > before))
        visitor.visit([(tree, leaf) for tree, leaves, _ in batch for leaf in leaves])
        for tree, leaves, _ in batch:
            if leaves:
                tree.receive(leaves)
        going = [tree for tree, leaves, moved in batch if leaves or moved]
        begun = together - len(going)
        going, waiting = going + waiting[:begun], waiting[begun:]
        on_answers(len(trees) - len(going) - len(waiting))
    visitor.finish([tree for tree in trees if not tree.found])
    return [_found(tree) for tree in trees]


def _found(tree: Tree) -> Found:
    assert tree.best is not None
    best = tree.found[tree.best]
    return Found(tree.start, tree.best, best.text, best.score, tree.spent, tree)


class Visitor:
    """Visits leaves: reads them, says what may follow, and what they are worth.

    Args:
        sampler: Reads and samples.
        rules: Score answers.
        how: What is asked of a leaf.
    """

    def __init__(self, sampler: Sampler, rules: SingleAnswers, how: Search):
        self.sampler, self.rules, self.how = sampler, rules, how

    def visit(self, leaves: Sequence[tuple[Tree, Node]]) -> None:
        """Give each leaf a value, and one that has not ended its moves."""
        for tree, leaf in leaves:
            tree.spent.visits += 1
            tree.spent.expansions += not leaf.ended
        going = [(tree, leaf) for tree, leaf in leaves if not leaf.ended]
        answers = [(tree, leaf.answer) for tree, leaf in leaves if leaf.ended]
        tried: list[list[Text]] = []
        if going:
            texts = [self._text(tree, leaf.answer) for tree, leaf in going]
            logits, values = self.sampler.read(texts)
            self._expand(going, texts, logits)
            tried = self._tried(texts, logits)
            answers += [
                (t, answer) for (t, _), own in zip(going, tried, strict=True) for answer in own
            ]
        self.score(answers)
        for tree, leaf in leaves:
            if leaf.ended:
                leaf.value = tree.found[leaf.answer].score
        for number, (tree, leaf) in enumerate(going):
            scores = np.array([tree.found[answer].score for answer in tried[number]])
            leaf.value = self.how.leaf(float(values[number]), scores)

    def _tried(self, texts: Sequence[Continue], logits: torch.Tensor) -> list[list[Text]]:
        """The finished answers by which each leaf is judged."""
        k = self.how.leaf.continuations
        wide = [text for text in texts for _ in range(k)]
        said: Sequence[Text] = []
        if wide:
            rows = torch.arange(len(texts)).repeat_interleave(k)
            said = self.sampler.sample(wide, logits[rows])
        stop = [(self.rules.stop,)] if self.how.leaf.stops else []
        return [
            [(*text.answer, *own) for own in [*said[n * k : (n + 1) * k], *stop]]
            for n, text in enumerate(texts)
        ]

    def score(self, answers: Sequence[tuple[Tree, Text]]) -> None:
        """Note what answers earn; those that are known cost nothing."""
        new = [
            (tree, answer) for tree, answer in dict.fromkeys(answers) if answer not in tree.found
        ]
        scored = self.rules.score([tree.start for tree, _ in new], [answer for _, answer in new])
        for (tree, answer), one in zip(new, scored, strict=True):
            tree.found[answer] = one
            tree.spent.reward_calls += 1

    def finish(self, trees: Sequence[Tree]) -> None:
        """Finish one answer in trees in which none was: the likeliest end of the best beginning."""
        if not trees:
            return
        texts = [Continue(t.prompt, _most_promising(t.root), None, t.spent) for t in trees]
        logits, _ = self.sampler.read(texts)
        said = self.sampler.sample(texts, logits)
        self.score(
            [(t, (*text.answer, *own)) for t, text, own in zip(trees, texts, said, strict=True)]
        )

    def _expand(
        self, going: Sequence[tuple[Tree, Node]], texts: Sequence[Continue], logits: torch.Tensor
    ) -> None:
        following = self.how.branching(texts, logits, self.sampler)
        for (tree, leaf), (moves, priors) in zip(going, following, strict=True):
            leaf.expand(moves, priors)
            for number, move in enumerate(moves):
                answer = (*leaf.answer, *move)
                leaf.children[number] = Node(
                    answer,
                    logprob=leaf.logprob + float(np.log(priors[number])),
                    ended=self.rules.ended(tree.prompt, answer),
                )

    @staticmethod
    def _text(tree: Tree, answer: Text) -> Continue:
        return Continue(tree.prompt, answer, tree.generator, tree.spent)


def _most_promising(node: Node) -> Text:
    """The beginning of the highest value that was read; of equal ones the longest."""
    best, waiting = node, [node]
    while waiting:
        one = waiting.pop()
        known = [child for child in one.children.values() if child.value is not None]
        waiting += known
        best = max([best, *known], key=lambda n: (n.value or 0.0, len(n.answer)))
    return best.answer
