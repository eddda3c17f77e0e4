"""A live reward by hand: keys pressed while tokens appear, and a model of what they mean.

Knox and Stone, "Interactively Shaping Agents via Human Reinforcement: The TAMER Framework" (2009).
A person watches the policy write and presses keys for good and bad. A key comes some tenths of a
second after what it is about, so its reward is shared among the tokens that were shown then. A
model H(text, token) of the person's reward is fitted at once, and the next token is chosen by it.
H is no return to be bootstrapped: a person's reward already says how good a choice was in the long
run.

H is linear in the hidden states of the frozen policy, as TAMER's is in features of a state.
Silence is not learned: nobody knows whether it meant anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from agents.runs.record_files import append_records
from agents.runs.state_files import read_state, write_state
from policies import Policy, load_policy, tokenizer_of
from policies.cache import PrefixCache
from textenv.records import read_records
from textenv.rewards import Dense, dense
from textenv.step_batch import StepBatch
from textenv.tokenizers import decode_answer, encode_prompt, stop_tokens_of

DELAY = (0.2, 0.8)
"""Seconds from what is shown to the key about it, at least and at most (Knox and Stone, 2009)."""

STEPS, LEARNING_RATE = 10, 0.1
"""Optimiser steps whenever keys were pressed, on all that was rewarded so far."""

AT_THE_BEGINNING = 5
"""Times that a new session learns from each answer of earlier ones: about as often as these did."""


class Press(NamedTuple):
    """A key.

    Attributes:
        at: When it was pressed, in seconds of the person's clock.
        reward: What it says, such as 1 or -1.
    """

    at: float
    reward: float


class Person(Protocol):
    """Somebody who watches: `TerminalPerson`, or a script."""

    def clock(self) -> float:
        """Seconds since some moment."""
        ...

    def watch(self, text: str, seconds: float | None) -> Sequence[Press]:
        """Show a piece of text, and return the keys that were pressed until `seconds` are over.

        Args:
            text: What the policy has written; empty to wait for late keys.
            seconds: How long to wait; None waits for one key.

        Raises:
            KeyboardInterrupt: The person wants to stop.
        """
        ...


def credit(
    shown: ArrayLike, end: float, at: float, delay: tuple[float, float] = DELAY
) -> NDArray[np.float64]:
    """How much of a key's reward belongs to each token: shares that sum to at most 1.

    The share of a token is the probability that the delay of the key falls into the time for which
    the token was the last one on the screen; the delay is uniform between its bounds.

    Args:
        shown: When each token was shown, shape (n,), rising.
        end: When the last of them was no longer the last one.
        at: When the key was pressed.
        delay: Least and largest delay, in seconds.

    >>> credit([0.0, 0.5, 1.0], 1.5, at=1.2, delay=(0.2, 0.8)).round(3).tolist()
    [0.167, 0.833, 0.0]
    """
    begins = np.asarray(shown, dtype=np.float64)
    ends = np.append(begins[1:], end)
    least, most = delay
    # The moments that the key may be about.
    overlap = np.minimum(ends, at - least) - np.maximum(begins, at - most)
    return np.clip(overlap, 0, None) / (most - least)


class HumanReward(nn.Module):
    """H(text, token): the reward that the person would give for choosing a token behind a text.

    Args:
        trunk: The policy whose hidden states H is linear in; it is not trained.

    Attributes:
        head: Linear layer from a hidden state to the reward of every token; it starts at zero.
    """

    def __init__(self, trunk: Policy):
        super().__init__()
        self.trunk = trunk.frozen_copy()
        width = trunk.value_head.weight.shape[1]
        self.head = nn.Linear(width, trunk.vocab_size, device=trunk.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._optimizer = torch.optim.Adam(self.head.parameters(), LEARNING_RATE)

    def fit(self, hidden: Tensor, tokens: Tensor, rewards: Tensor, weights: Tensor) -> float:
        """Optimiser steps down the weighted squared error; returns the last one.

        Args:
            hidden: States of the texts before the tokens, shape (n, n_embd).
            tokens: What was chosen, shape (n,), int64.
            rewards: What the person thinks of it, shape (n,).
            weights: How sure it is that this is what the person meant, shape (n,).
        """
        # Hidden states are normalised, so that one step size does for all networks.
        features, loss = self._features(hidden), torch.zeros(())
        for _ in range(STEPS):
            self._optimizer.zero_grad()
            errors = self.head(features).gather(1, tokens[:, None]).squeeze(1) - rewards
            loss = (weights * errors**2).sum() / weights.sum()
            loss.backward()
            self._optimizer.step()
        return float(loss.detach())

    @torch.inference_mode()
    def of_all(self, hidden: Tensor) -> Tensor:
        """The reward of every token behind texts with these hidden states, shape (n, V)."""
        rewards: Tensor = self.head(self._features(hidden))
        return rewards

    def as_reward(self) -> Dense:
        """H as a dense reward of an environment, for PPO once the person has gone."""
        return dense(_Stepwise(self), "human_reward")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # environments deep-copy their arguments

    def save(self, folder: str | Path) -> None:
        """Write the head and the policy that it reads into `folder`."""
        self.trunk.save(folder)
        write_state(folder, "human_reward", {"head": self.head.state_dict()})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: Files are missing or damaged.
        """
        model = cls(load_policy(folder))
        model.head.load_state_dict(read_state(folder, "human_reward")["head"])
        return model

    def _features(self, hidden: Tensor) -> Tensor:
        return nn.functional.normalize(hidden.clone().float(), dim=1)


class _Stepwise:
    """H of the new tokens of a step."""

    def __init__(self, model: HumanReward):
        self.model = model
        self._cache: PrefixCache | None = None

    def __call__(self, batch: StepBatch) -> NDArray[np.float64]:
        trunk = self.model.trunk
        before = batch.tokens.copy()
        before[np.arange(len(batch)), batch.lengths - 1] = trunk.pad_token
        if self._cache is None or self._cache.shape != before.shape:
            self._cache = trunk.new_cache(*before.shape)
        rewards = self.model.of_all(trunk.last_hidden(before, self._cache))
        chosen = rewards[torch.arange(len(batch)), torch.from_numpy(batch.actions)]
        return chosen.double().cpu().numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


# -------------------------------------------------------------------- choosing by H


@dataclass(frozen=True)
class Greedy:
    """Take the token of the largest H among the likeliest ones, as TAMER does.

    Attributes:
        among: How many tokens the policy proposes; the person never has to teach it language.
    """

    among: int = 8

    def __call__(self, logits: Tensor, rewards: Tensor, generator: np.random.Generator) -> int:
        """The chosen token; of equal rewards the likelier one.

        Args:
            logits: The policy's, shape (V,).
            rewards: H of each token, shape (V,).
            generator: Not used.
        """
        likeliest = logits.topk(min(self.among, len(logits))).indices  # in falling order
        return int(likeliest[rewards[likeliest].argmax()])


@dataclass(frozen=True)
class Biased:
    """Sample from the policy times exp(strength * H): action biasing (Knox and Stone, 2012).

    Attributes:
        strength: Nats for a reward of 1.
        temperature: The policy's logits are divided by it.
    """

    strength: float = 3.0
    temperature: float = 1.0

    def __call__(self, logits: Tensor, rewards: Tensor, generator: np.random.Generator) -> int:
        """The chosen token; see `Greedy`."""
        biased = (logits / self.temperature + self.strength * rewards).double()
        probabilities = biased.softmax(0).cpu().numpy()
        return int(generator.choice(len(probabilities), p=probabilities / probabilities.sum()))


# -------------------------------------------------------------------- a session


@dataclass
class Watched:
    """An answer that a person has watched.

    Attributes:
        prompt: What was asked.
        text: The answer.
        tokens: Its ids, the stop token included.
        rewards: What each token earned: its shares of the keys' rewards, summed.
        weights: The sum of these shares; 0 where nothing was said.
    """

    prompt: str
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def to_record(self) -> dict[str, Any]:
        """A record from which `from_record` makes it again."""
        return dict(vars(self))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """An answer from a record.

        Raises:
            ValueError: It has another form.
        """
        try:
            made = cls(*(record[name] for name in cls.__dataclass_fields__))
            lengths = {len(made.tokens), len(made.rewards), len(made.weights)}
        except (KeyError, TypeError):
            lengths = set()
        if len(lengths) != 1:
            raise ValueError("the record is not of an answer that a person has watched")
        return made


def live_session(
    model: HumanReward,
    policy: Policy,
    prompts: Sequence[str],
    person: Person,
    *,
    seconds_per_token: float | None = 0.5,
    max_new_tokens: int = 32,
    choose: Greedy | Biased = Biased(),
    delay: tuple[float, float] = DELAY,
    earlier: Sequence[Watched] = (),
    seed: int = 0,
) -> Iterator[Watched]:
    """Answers to prompts in turn, while a person rewards them and H learns.

    Args:
        model: H; it learns whenever keys were pressed.
        policy: Proposes tokens; it is not trained.
        prompts: Texts, one after the other.
        person: Watches and presses keys.
        seconds_per_token: How long each token is the last one on the screen; None shows whole
            answers and waits for one key, whose reward all tokens of the answer get.
        max_new_tokens: Longest answer.
        choose: How the next token follows from the policy and H.
        delay: Least and largest delay of a key.
        earlier: Answers of earlier sessions, which H goes on learning from.
        seed: Seed of the sampling.

    Raises:
        KeyboardInterrupt: The person stops; an answer that was rewarded so far comes before.
        PromptTooLongError: A prompt and its answer do not fit the policy's context.
    """
    memory = _Memory(model)
    for watched in earlier:
        memory.add(watched)
    for _ in range(min(AT_THE_BEGINNING * len(earlier), 100)):
        memory.learn()
    for number, prompt in enumerate(prompts):
        generator = np.random.default_rng([seed, len(earlier) + number])
        watched = Watched(prompt)
        shown: list[float] = []
        try:
            person.watch(f"\n\n{prompt}", 0.0)
            for piece in _written(model, policy, watched, max_new_tokens, choose, generator):
                shown.append(person.clock())
                if seconds_per_token is None:
                    continue
                presses = person.watch(piece, seconds_per_token)
                if _share(watched, shown, person.clock(), presses, delay):
                    memory.learn(watched)
            if seconds_per_token is None:
                presses = person.watch(watched.text, None)
                count = len(watched.tokens)
                watched.rewards = [sum(press.reward for press in presses)] * count
                watched.weights = [float(bool(presses))] * count
            else:  # keys about the last tokens are still to come
                presses = person.watch("", delay[1])
                _share(watched, shown, person.clock(), presses, delay)
        except KeyboardInterrupt:
            if any(watched.weights):  # what was said of the beginning is not lost
                yield watched
            raise
        memory.add(watched)
        memory.learn()
        yield watched


def _written(
    model: HumanReward,
    policy: Policy,
    watched: Watched,
    max_new_tokens: int,
    choose: Greedy | Biased,
    generator: np.random.Generator,
) -> Iterator[str]:
    """Choose tokens one by one into `watched`; yields the text that each adds."""
    tokenizer = tokenizer_of(policy)
    stops, ids = stop_tokens_of(tokenizer), encode_prompt(tokenizer, watched.prompt)
    begin, cache = len(ids), policy.new_cache(1, len(ids) + max_new_tokens)
    row = np.full((1, len(ids) + max_new_tokens), policy.pad_token, dtype=np.int64)
    row[0, :begin] = ids
    for place in range(begin, begin + max_new_tokens):
        hidden = policy.last_hidden(row, cache)
        with torch.inference_mode():
            logits = policy.choices(hidden)[0]
        token = choose(logits, model.of_all(hidden)[0], generator)
        row[0, place] = token
        watched.tokens.append(token)
        watched.rewards.append(0.0)
        watched.weights.append(0.0)
        said = watched.tokens[:-1] if token in stops else watched.tokens
        text = decode_answer(tokenizer, ids, said)
        piece, watched.text = text[len(watched.text) :], text
        yield piece
        if token in stops:
            return


def _share(
    watched: Watched,
    shown: Sequence[float],
    end: float,
    presses: Sequence[Press],
    delay: tuple[float, float],
) -> bool:
    """Give the tokens their shares of the keys; says whether there were any."""
    for press in presses:
        shares = credit(shown, max(end, press.at), press.at, delay)
        for place, share in enumerate(shares.tolist()):
            if share > 0:
                watched.weights[place] += share
                watched.rewards[place] += share * press.reward
    return bool(presses)


class _Memory:
    """All that was rewarded, with the hidden states that H is fitted on."""

    def __init__(self, model: HumanReward):
        self.model = model
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, watched: Watched) -> None:
        part = self._of(watched)
        if part is not None:
            self._parts.append(part)

    def learn(self, present: Watched | None = None) -> None:
        """Fit H to everything, and to an answer that is not finished yet."""
        part = None if present is None else self._of(present)
        parts = [*self._parts, *([] if part is None else [part])]
        if parts:
            self.model.fit(*(torch.cat(some) for some in zip(*parts, strict=True)))

    @torch.no_grad()
    def _of(self, watched: Watched) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Hidden states, tokens, rewards and weights of the rewarded tokens."""
        trunk = self.model.trunk
        ids = encode_prompt(tokenizer_of(trunk), watched.prompt)
        tokens = torch.tensor([[*ids, *watched.tokens]], device=trunk.device)
        rewarded = [weight > 0 for weight in watched.weights]
        if not any(rewarded):
            return None
        mask = torch.tensor([[*([False] * len(ids)), *rewarded]], device=trunk.device)
        lengths = torch.tensor([tokens.shape[1]], device=trunk.device)
        hidden = trunk.hidden_before(tokens, mask, lengths)
        kept = torch.tensor(rewarded)
        rewards, weights = (
            torch.tensor(x)[kept].to(trunk.device) for x in (watched.rewards, watched.weights)
        )
        return hidden, tokens[mask], rewards, weights


def read_watched(path: str | Path) -> list[Watched]:
    """The answers of earlier sessions; none if there is no file.

    Raises:
        MalformedRecordError: Some lines of the file are something else.
    """
    there = Path(path).exists() and Path(path).stat().st_size > 0
    return read_records(path, Watched.from_record, "watched answers") if there else []


def append_watched(path: str | Path, watched: Watched) -> None:
    """Add an answer to a file of them."""
    append_records(path, [watched.to_record()])
