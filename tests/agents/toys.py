"""Policies and environments that do as a test says."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from letters import Letters

from policies import Step, TransformerConfig, TransformerPolicy
from textenv.vector import TextVectorEnv


def scripted_logprob(observation_length: int, action: int) -> float:
    return -0.5 * observation_length - 0.01 * action


def scripted_value(observation_length: int) -> float:
    return 10.0 + observation_length


class ScriptedPolicy(TransformerPolicy):
    """Chooses what the script says; log-probabilities and values tell the length of the text."""

    def __init__(self, vocab_size: int, context: int, script: Iterable[Sequence[int]]):
        super().__init__(TransformerConfig(vocab_size, context, n_layer=1, n_head=1, n_embd=4))
        self.script: Iterator[Sequence[int]] = iter(script)
        self.masks_seen: list[Any] = []

    def act(self, observations, cache=None, **options):
        self.masks_seen.append(options.get("action_masks"))
        actions = np.array(next(self.script))
        lengths = (np.asarray(observations) != self.pad_token).sum(1)
        pairs = zip(lengths, actions, strict=True)
        logprobs = [scripted_logprob(length, action) for length, action in pairs]
        return Step(actions, np.float32(logprobs), np.float32(scripted_value(lengths)))

    def value(self, observations, cache=None):
        import torch

        lengths = (np.asarray(observations) != self.pad_token).sum(1)
        return torch.from_numpy(scripted_value(lengths)).float()


def letters_env(
    num_envs: int, letters: int = 4, stop: bool = True, **options: Any
) -> TextVectorEnv:
    """Answers of at most 3 letters to the prompt "a"; the reward is 10 per token."""
    defaults = {
        "prompts": ["a"],
        "reward": lambda episodes: [10.0 * len(e.tokens) for e in episodes],
        "tokenizer": Letters(letters, stop),
        "max_new_tokens": 3,
    }
    return TextVectorEnv(num_envs, **(defaults | options))


class ToolEnv(VectorEnv):
    """After every letter that is chosen, as many tokens of a tool follow as the letter's id.

    One row. Texts begin with token 3 and end when 3 letters have been chosen. The reward is 1 for
    each choice. The tool writes token 3.
    """

    def __init__(self) -> None:
        self.num_envs = 1
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_action_space = spaces.Discrete(4)
        self.single_observation_space = spaces.Box(0, 4, (12,), np.int64)
        self.action_space = batch_space(self.single_action_space, 1)
        self.observation_space = batch_space(self.single_observation_space, 1)

    def _observation(self) -> np.ndarray:
        return np.array([self.text + [4] * (12 - len(self.text))])

    def reset(self, *, seed=None, options=None):
        self.text, self.choices = [3], 0
        return self._observation(), {}

    def step(self, actions):
        action = int(actions[0])
        self.text += [action] + [3] * action
        self.choices += 1
        over, infos = np.array([self.choices == 3]), {}
        if over[0]:
            final = np.full(1, None, dtype=object)
            final[0] = self._observation()[0]
            infos = {"final_obs": final, "final_info": {}}
            self.reset()
        return self._observation(), np.ones(1), over, np.zeros(1, dtype=bool), infos
