"""A live reward by hand: keys pressed while tokens appear, learned at once (TAMER).

Knox and Stone, "Interactively Shaping Agents via Human Reinforcement: The TAMER Framework" (2009).
A person watches the policy act in an environment and presses keys for good and bad. A model H of
the person's reward is fitted at once, and the next token is chosen by it. What the environment pays
is not read.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import torch

from agents.feedback.from_people.action_selection import BIASED, Selection
from agents.feedback.from_people.human_reward import HumanReward, Memory
from agents.feedback.from_people.key_credit import DELAY, Press, credit
from agents.feedback.from_people.watched import Watched
from agents.feedback.rankings import Asked, as_text
from policies import Policy
from textenv import Prompt, TextEnv
from textenv.errors import WorldError
from textenv.tokenizers import decode_answer

AT_THE_BEGINNING = 5
"""Times that a new session learns from each answer of earlier ones: about as often as these did."""


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


def live_session(
    model: HumanReward,
    policy: Policy,
    env: TextEnv,
    person: Person,
    *,
    prompts: Iterable[str | Prompt] | None = None,
    seconds_per_token: float | None = 0.5,
    choose: Selection = BIASED,
    delay: tuple[float, float] = DELAY,
    earlier: Sequence[Watched] = (),
    seed: int = 0,
) -> Iterator[Watched]:
    """Answers or conversations in turn, while a person rewards them and H learns.

    Between two turns of a conversation the world's reply is shown; keys are about the turns.

    Args:
        model: H; it learns whenever keys were pressed.
        policy: Proposes tokens; it is not trained.
        env: Where it answers: its frame, world and masks count, its reward does not.
        person: Watches and presses keys.
        prompts: What episodes begin with, one after the other; None takes what the environment
            draws, for ever.
        seconds_per_token: How long each token is the last one on the screen; None shows whole turns
            and waits for one key behind each, whose reward all tokens of the turn get.
        choose: How the next token follows from the policy and H: `Biased`, `Greedy` or a function.
        delay: Least and largest delay of a key.
        earlier: Answers of earlier sessions, which H goes on learning from.
        seed: Seed of the sampling and of the episodes.

    Raises:
        KeyboardInterrupt: The person stops; an answer that was rewarded so far comes before.
        WorldError: The world failed; the same.
        PromptTooLongError: A prompt does not fit the environment.
    """
    memory = Memory(model)
    for watched in earlier:
        memory.add(watched)
    for _ in range(min(AT_THE_BEGINNING * len(earlier), 100)):
        memory.learn()
    asked = repeat(None) if prompts is None else prompts
    for number, prompt in enumerate(asked, len(earlier)):
        episode = _Episode(model, policy, env, choose, prompt, [seed, number])
        watched = episode.watched
        try:
            person.watch(_shown(watched.prompt), 0.0)
            while not episode.over:
                if seconds_per_token is None:
                    _reward_turn(episode, person)
                else:
                    _reward_tokens(episode, person, memory, seconds_per_token, delay)
                memory.learn(watched)
                episode.hear_reply(person)
        except (KeyboardInterrupt, WorldError):
            if any(watched.weights):  # what was said of the beginning is not lost
                yield watched
            raise
        memory.add(watched)
        yield watched


def _reward_turn(episode: "_Episode", person: Person) -> None:
    """Show a whole turn; one key is about all of it."""
    watched, begin = episode.watched, len(episode.watched.tokens)
    presses = person.watch("".join(episode.turn()), None)
    count = len(watched.tokens) - begin
    watched.rewards[begin:] = [sum(press.reward for press in presses)] * count
    watched.weights[begin:] = [float(bool(presses))] * count


def _reward_tokens(
    episode: "_Episode",
    person: Person,
    memory: Memory,
    seconds: float,
    delay: tuple[float, float],
) -> None:
    """Show a turn token by token; keys are about what was shown before, and H learns at each."""
    watched, begin = episode.watched, len(episode.watched.tokens)
    shown: list[float] = []

    def share(presses: Sequence[Press]) -> None:
        for press in presses:
            shares = credit(shown, max(person.clock(), press.at), press.at, delay)
            for place, part in enumerate(shares.tolist(), begin):
                if part > 0:
                    watched.weights[place] += part
                    watched.rewards[place] += part * press.reward

    for piece in episode.turn():
        shown.append(person.clock())
        presses = person.watch(piece, seconds)
        share(presses)
        if presses:
            memory.learn(watched)
    share(person.watch("", delay[1]))  # keys about the last tokens are still to come


class _Episode:
    """An episode that is played token by token.

    Attributes:
        watched: What was written so far.
        over: Whether it has ended.
    """

    def __init__(
        self,
        model: HumanReward,
        policy: Policy,
        env: TextEnv,
        choose: Selection,
        prompt: str | Prompt | None,
        seed: Sequence[int],
    ):
        self._model, self._policy, self._env, self._choose = model, policy, env, choose
        self._generator = np.random.default_rng(seed)
        options = None if prompt is None else {"prompt": prompt}
        # The environment takes 63 bits, of numbers that are as far apart as the seeds.
        drawn = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
        self._observation, info = env.reset(seed=drawn, options=options)
        self._cache = policy.new_cache(1, len(self._observation))
        self._reply, self._reply_tokens = "", list[int]()
        self.over = False
        self.watched = Watched(_asked(info), self._ids())

    def turn(self) -> Iterator[str]:
        """Choose tokens until the turn ends; yields the text that each adds.

        Raises:
            WorldError: The world failed at the turn's end.
        """
        env, watched, before = self._env, self.watched, self._ids()
        said: list[int] = []
        text = ""
        while True:
            token = self._chosen()
            self._observation, _, terminated, truncated, info = env.step(token)
            said.append(token)
            watched.append([token])
            stopped = token in env.stop_tokens
            new = decode_answer(env.tokenizer, before, said[:-1] if stopped else said)
            piece, text = new[len(text) :], new
            watched.text += piece
            yield piece
            if "world_error" in info:
                raise WorldError(info["world_error"])
            if terminated or truncated or "turn" in info:
                self.over = terminated or truncated
                self._reply = info.get("reply", "")
                self._reply_tokens = list(map(int, info.get("reply_tokens", ())))
                return

    def hear_reply(self, person: Person) -> None:
        """Show what the world has said to the turn, if anything."""
        if not self.over:
            shown = f"\n{self._reply}\n"
            self.watched.append(self._reply_tokens)
            self.watched.text += shown
            person.watch(shown, 0.0)

    def _chosen(self) -> int:
        hidden = self._policy.last_hidden(self._observation[None], self._cache)
        with torch.inference_mode():
            logits = self._policy.choices(hidden)[0]
            allowed = torch.from_numpy(self._env.action_masks().copy()).to(logits.device)
            logits = logits.masked_fill(~allowed, -torch.inf)
        return self._choose(logits, self._model.of_all(hidden)[0], self._generator)

    def _ids(self) -> list[int]:
        ids: list[int] = self._observation[self._observation != self._env.pad_token].tolist()
        return ids


def _asked(info: dict[str, Any]) -> Asked:
    """What an episode began with: the messages that were drawn, or the text of its opening."""
    drawn: Asked = info["record"]["prompt"]
    opening: str = info["prompt"]
    is_opening = not isinstance(drawn, str) and Prompt("", messages=drawn).text == opening
    return drawn if is_opening else opening


def _shown(prompt: Asked) -> str:
    """A prompt on the screen: a text goes on behind it, an answer to messages begins anew."""
    return f"\n\n{prompt}" if isinstance(prompt, str) else f"\n\n{as_text(prompt)}\n\n"
