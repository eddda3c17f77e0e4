"""What a search knows of an environment: which tokens may follow, what ends an answer, its score.

Environments in which an episode is one answer are supported, with any reward, dense ones and
wrappers included, budgets, stop tokens and strings, and the masks of `TextVectorEnv`. Worlds, tools
and games are refused: a search would have to ask them for replies to answers that are not given.
Grammars are refused too.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from agents.search.reading import Text
from policies import Policy
from textenv import ListPrompts, Prompt
from textenv.errors import UnmetNeedError, UnscoredError, VocabularyMismatchError
from textenv.seeding import keyed_generator
from textenv.starts import Start
from textenv.stop_strings import StopStrings


class Scored(NamedTuple):
    """An answer as the environment sees it.

    Attributes:
        score: Sum of its rewards.
        text: The answer in words.
    """

    score: float
    text: str


class SingleAnswers:
    """The rules and the reward of an environment whose episodes are single answers.

    Args:
        envs: A `TextVectorEnv`, wrapped or not; its running episodes go on as they were.
        policy: The policy that is to answer there.

    Attributes:
        max_new_tokens: Token budget of an answer.
        min_new_tokens: Length from which an answer may end.
        tokenizer: The environment's.

    Raises:
        UnmetNeedError: Its episodes are conversations, or it is no `TextVectorEnv`.
        VocabularyMismatchError: The policy has other tokens.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], policy: Policy):
        inner: Any = envs.unwrapped
        if not hasattr(inner, "playing"):
            raise UnmetNeedError(
                f"{type(inner).__name__} cannot be searched: only a textenv.TextVectorEnv, which "
                "can play on from anywhere"
            )
        if inner.world is not None:
            raise UnmetNeedError(
                "this environment has a world, which replies: a search looks at single answers. "
                "Leave out world= and tools=, or sample answers from the policy"
            )
        if inner.tokenizer.vocab_size != policy.vocab_size:
            raise VocabularyMismatchError(
                f"the policy has {policy.vocab_size} tokens and the environment "
                f"{inner.tokenizer.vocab_size}: make it with tokenizer=policy.tokenizer"
            )
        self._envs, self._inner, self.tokenizer = envs, inner, inner.tokenizer
        rules = inner.answer_rules
        if "grammar" in rules:
            raise UnmetNeedError(
                "this environment has a grammar, and a search does not know what it allows behind "
                "each beginning: leave out grammar=, or sample answers from the policy"
            )
        self.max_new_tokens: int = rules["max_new_tokens"]
        self._stops = frozenset(rules["stop_tokens"])
        self.min_new_tokens: int = rules["min_new_tokens"]
        strings = rules["stop_strings"]
        self._strings = StopStrings(strings, inner.tokenizer) if strings else None
        late = torch.from_numpy(rules["action_masks"]).to(policy.device)
        early = late.clone()
        early[list(self._stops)] = False
        self._tables = torch.stack([early if self.min_new_tokens else late, late])
        # A wrapper or a dense reward may pay at any step; else the last one tells all.
        self._whole = inner.pays_every_step or envs is not inner

    @property
    def stop(self) -> int:
        """A token that ends any answer.

        Raises:
            UnmetNeedError: There is none, or answers may not end yet.
        """
        if not self._stops or self.min_new_tokens:
            raise UnmetNeedError(
                f"an answer cannot stop anywhere here: there are {len(self._stops)} stop tokens, "
                f"and min_new_tokens is {self.min_new_tokens}. Judge leaves by continuations or "
                "by values"
            )
        return min(self._stops)

    def openings(self, prompts: Sequence[Prompt], seed: int) -> list[Start]:
        """Where the answers to the prompts begin, with the ids that the environment reads."""
        starts = []
        for number, prompt in enumerate(ListPrompts(prompts).prompts):
            drawn = int(keyed_generator(seed, number).integers(2**63))
            starts.append(Start(prompt, draw_seed=drawn, episode_seed=drawn))
        opened: list[Start] = []
        for begin in range(0, len(starts), self._inner.num_envs):
            part = starts[begin : begin + self._inner.num_envs]
            playing = self._inner.playing(part)
            playing.reset()
            opened += [
                replace(playing.start_of(r), episode_seed=s.episode_seed)
                for r, s in enumerate(part)
            ]
        return opened

    def masked(self, logits: Tensor, lengths: Sequence[int]) -> Tensor:
        """Logits (n, V) of what may follow answers of these lengths; minus infinity elsewhere."""
        rows = [int(length >= self.min_new_tokens) for length in lengths]
        return logits.masked_fill(~self._tables[torch.tensor(rows)], -torch.inf)

    def masks(self, lengths: Sequence[int]) -> NDArray[np.bool_] | None:
        """What may follow answers of these lengths, shape (n, V); None if that is everything."""
        if self._tables.all():
            return None
        rows = [int(length >= self.min_new_tokens) for length in lengths]
        return self._tables.cpu().numpy()[rows]

    def ended(self, prompt: Sequence[int], answer: Text) -> bool:
        """Whether the last token of an answer ends it."""
        if not answer:
            return False
        if len(answer) >= self.max_new_tokens or answer[-1] in self._stops:
            return True
        if self._strings is None or len(answer) < self.min_new_tokens:
            return False
        return self._strings.completed(prompt, answer) is not None

    def score(self, starts: Sequence[Start], answers: Sequence[Text]) -> list[Scored]:
        """What finished answers earn, each to its own prompt, in as few reward calls as can be.

        Raises:
            RewardError: The reward failed.
            UnscoredError: It gave None to an answer.
        """
        if not answers:
            return []
        begun, scripts = [], []
        for start, answer in zip(starts, answers, strict=True):
            known = () if self._whole else answer[:-1]
            ids = np.array(known, dtype=np.int64) if known else None
            begun.append(replace(start, answer=ids))
            scripts.append(answer[len(known) :])
        return self._play(begun, scripts)

    def _play(self, starts: Sequence[Start], scripts: Sequence[Text]) -> list[Scored]:
        """Step an environment through what each row is to say."""
        playing = self._inner.playing(starts)
        made: Any = copy.deepcopy(self._envs, {id(self._inner): playing})
        made.reset()
        rows = playing.num_envs
        whose: list[int | None] = list(range(rows))
        place, begun = np.zeros(rows, dtype=np.int64), rows
        earned = np.zeros(len(starts))
        found: dict[int, Scored] = {}
        while len(found) < len(starts):
            actions = [0 if n is None else scripts[n][place[r]] for r, n in enumerate(whose)]
            _, rewards, terminated, truncated, infos = made.step(np.array(actions))
            place += 1
            for row, number in enumerate(whose):
                if number is None:
                    continue
                earned[number] += rewards[row]
                over = bool(terminated[row] or truncated[row])
                if over != (place[row] == len(scripts[number])):
                    raise UnmetNeedError(
                        f"{made!r} ends answers otherwise than by its stop tokens, stop strings "
                        "and token budget: a search cannot know where they end"
                    )
                if over:
                    found[number] = self._scored(infos["final_info"], row, earned[number])
                    place[row] = 0
                    whose[row] = begun if begun < len(starts) else None
                    begun += 1
        return [found[number] for number in range(len(starts))]

    def _scored(self, infos: dict[str, Any], row: int, earned: float) -> Scored:
        text = str(infos["text"][row])
        if "scored" in infos and not infos["scored"][row]:
            raise UnscoredError(
                f"the reward gave None to the answer {text!r}: a search compares answers, so it "
                "must give a number to each"
            )
        return Scored(float(earned), text)
