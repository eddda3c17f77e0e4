"""Rollouts of searches, for `ExpertIteration`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from agents.rollout import Rollout
from agents.search.answers import SingleAnswers
from agents.search.budget import SOME, Budget
from agents.search.mcts import MCTS
from agents.search.searching import Found, search
from agents.search.tree import Node
from policies import Policy
from textenv import Prompt
from textenv.errors import UnmetNeedError
from textenv.starts import Start


class SearchCollector:
    """In place of a `Collector`: searches the prompts, and tells of every move that was looked at.

    A sequence of its rollouts is a state of a tree and one move from there, which is what its mask
    marks. The learner's `n_episodes` is the number of prompts that are searched, and an update's
    score the mean of the best answers that were found.

    Args:
        policy: The policy that learns.
        envs: The environment; prompts are drawn by its resets.
        temperature: Logits are divided by it.
        seed: Seed of the prompts and of the searches.
        how: How to search. For `visit_counts` take `MCTS(returns=True, leaves=1)` and a bound of
            visits: leaves that are visited together spread more than the counts alone would.
        budget: What may be spent on each prompt.

    Collecting raises:
        UnmetNeedError: The environment is none of single answers; or steps, or continuations of
            starts, are asked for.
    """

    def __init__(
        self,
        policy: Policy,
        envs: VectorEnv[Any, Any, Any],
        temperature: float = 1.0,
        seed: int | None = None,
        *,
        how: MCTS = MCTS(),  # noqa: B008  # frozen
        budget: Budget = SOME,
    ):
        self.policy, self.envs, self.temperature = policy, envs, temperature
        self.how, self.budget, self.world_error = how, budget, ""
        self._seed, self._searches, self._encoded = seed or 0, 0, 0
        self._spent = {"encoded_tokens": 0.0, "reward_calls": 0.0}
        envs.reset(seed=seed)
        self._fresh = True

    def collect_episodes(self, n_episodes: int) -> Rollout:
        """The moves that the searches of this many prompts have looked at."""
        before = self.policy.encoded_tokens
        found = search(
            self.policy,
            self.envs,
            self._prompts(n_episodes),
            self.how,
            self.budget,
            seed=self._seed + 1_000_003 * self._searches,
            temperature=self.temperature,
        )
        self._searches += 1
        for name in self._spent:
            self._spent[name] = float(sum(getattr(one.spent, name) for one in found))
        rollout = self._with_logprobs(
            self._with_masks(rollout_of(found, self.policy.pad_token)).to(self.policy.device)
        )
        self._encoded += self.policy.encoded_tokens - before
        return rollout

    def _with_masks(self, rollout: Rollout) -> Rollout:
        """The rollout with what could be chosen, to which the searches kept."""
        rules = SingleAnswers(self.envs, self.policy)
        # Before an answer may end, and from then on.
        table = rules.masks([0, rules.min_new_tokens])
        if table is None:
            return rollout
        assert rollout.prompt_lengths is not None
        answered = torch.arange(rollout.tokens.shape[1]) - rollout.prompt_lengths[:, None]
        late = rollout.mask & (answered >= rules.min_new_tokens)
        return replace(rollout, mask_ids=late.long(), mask_table=torch.from_numpy(table))

    def _prompts(self, count: int) -> list[Prompt]:
        """So many, one of each group of rows, since a search has many answers to each."""
        envs: Any = self.envs
        apart = envs.unwrapped.group_size
        prompts: list[Prompt] = []
        while len(prompts) < count:
            if not self._fresh:
                envs.reset()
            self._fresh = False
            rows = range(0, envs.num_envs, apart)[: count - len(prompts)]
            prompts += [envs.unwrapped.start_of(row).prompt for row in rows]
        return prompts

    def _with_logprobs(self, rollout: Rollout) -> Rollout:
        with torch.no_grad():
            outputs = self.policy.outputs(
                rollout.tokens,
                rollout.mask,
                temperature=self.temperature,
                action_masks=rollout.action_masks,
            )
        return replace(rollout, logprobs=outputs.logprobs)

    def forget(self) -> None:
        """Nothing is kept from one search to the next."""

    def report(self) -> dict[str, float]:
        """Tokens that were encoded since the last report; `spent` is of the last rollout."""
        encoded, self._encoded = self._encoded, 0
        return {"rollout_encoded_tokens": float(encoded)}

    @property
    def spent(self) -> dict[str, float]:
        """Encoded tokens and reward calls of the last rollout."""
        return dict(self._spent)

    def state_dict(self) -> dict[str, Any]:
        """How many searches were made, and the state of the environment."""
        inner: Any = self.envs.unwrapped
        return {"searches": self._searches, "fresh": self._fresh, "envs": inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        inner: Any = self.envs.unwrapped
        self._searches, self._fresh = state["searches"], state["fresh"]
        inner.load_state_dict(state["envs"])

    def collect_steps(self, n_steps: int) -> NoReturn:
        """Refused."""
        raise UnmetNeedError("a search has no steps: give the learner n_episodes, not n_steps")

    def collect_from(self, starts: Sequence[Start], n: int = 1) -> NoReturn:
        """Refused."""
        raise UnmetNeedError("a SearchCollector plays no continuations of given starts")


def rollout_of(found: Sequence[Found], pad_token: int) -> Rollout:
    """Every move of every state that was expanded, parents before children, one a sequence.

    `extra` holds of each move its `visits`, what it is worth (`q`), its `prior`, the number of its
    `state` and of the one `below` it, -1 if that was not expanded.
    """
    rows: list[tuple[int, tuple[int, ...], int]] = []  # prompt, ids, where the move begins
    told: dict[str, list[float]] = {n: [] for n in ("visits", "q", "prior", "state", "below")}
    number = 0
    for prompt, one in enumerate(found):
        states = _expanded(one.tree.root)
        numbers = {node: number + place for place, node in enumerate(states)}
        number += len(states)
        for node in states:
            for move, child in node.children.items():
                whole = (*one.tree.prompt, *child.answer)
                rows.append((prompt, whole, len(one.tree.prompt) + len(node.answer)))
                # A move that was never taken is worth what its state was judged to be.
                known = child.value if child.value is not None else node.value
                assert known is not None
                told["visits"].append(float(node.visits[move]))
                told["q"].append(known)
                told["prior"].append(float(node.priors[move]))
                told["state"].append(numbers[node])
                told["below"].append(numbers.get(child, -1))
    tokens = torch.full((len(rows), max(len(ids) for _, ids, _ in rows)), pad_token)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, (_, ids, begin) in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, begin : len(ids)] = True
    groups = torch.tensor([prompt for prompt, _, _ in rows])
    best = torch.tensor([one.score for one in found], dtype=torch.float64)
    log = Rollout.from_log(tokens, mask, best[groups], groups)
    first = torch.zeros(len(rows), dtype=torch.bool)  # one stands for the prompt's answer
    first[np.unique(groups.numpy(), return_index=True)[1]] = True
    return replace(
        log,
        terminated=first,
        prompt_lengths=torch.tensor([len(found[prompt].tree.prompt) for prompt, _, _ in rows]),
        turns=torch.where(mask, 1, -1),
        mid_turn=~first,
        extra={name: torch.tensor(v, dtype=torch.float64) for name, v in told.items()},
    )


def _expanded(root: Node) -> list[Node]:
    """The nodes with moves, of which at least one was taken; parents before children."""
    states = [root]
    for node in states:  # grows on the way
        states += [child for child in node.children.values() if child.visits.any()]
    return states
