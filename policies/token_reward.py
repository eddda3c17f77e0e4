"""A network that gives every token of an answer a reward of its own; a segment has their sum.

Christiano et al., "Deep Reinforcement Learning from Human Preferences" (2017), arXiv:1706.03741,
learn such a predictor from comparisons of short segments of behaviour: the probability that one
segment is preferred is the sigmoid of the difference of the sums. A reward model says how good a
whole answer is; this says where in the answer it became so, so that credit needs no bootstrapping.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from policies.cache import PrefixCache
from policies.reward_model import RewardModel
from textenv.errors import VocabularyMismatchError
from textenv.frames import Message
from textenv.rewards import Dense, dense
from textenv.step_batch import StepBatch
from textenv.tokenizers import stop_tokens_of


class TokenReward(RewardModel):
    """Rewards tokens, given all that stands before them; higher is better.

    The head reads the hidden state of the token itself. Tokens that end an answer get no reward.
    The score of a text is the sum over its tokens, prompt included: answers to one prompt differ by
    their own tokens only, so that whatever compares or ranks answers takes this model like any
    `RewardModel`, and `reward_model_steps` trains it on rankings of segments.

    Attributes:
        mean: Subtracted from the reward of every token, a scalar; see `centre`.
    """

    def score_tokens(self, tokens: Tensor) -> Tensor:
        """Sums of the rewards of whole texts, shape (S,), with gradient if enabled.

        Args:
            tokens: Rows of ids, shape (S, L), int64, right-padded with `trunk.pad_token`.
        """
        return self.rewards(tokens, self._rewarded(tokens)).sum(1)

    def rewards(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The reward of each token under `mask`, 0 elsewhere, shape (S, L), float32.

        Args:
            tokens: Rows of ids, shape (S, L), int64, right-padded with `trunk.pad_token`.
            mask: Which tokens are asked for, shape (S, L), bool.
        """
        lengths = (tokens != self.trunk.pad_token).sum(1)
        # `hidden_before` gives the state in front of a token; that of the token itself stands in
        # front of the next one.
        hidden = self.trunk.hidden_before(F.pad(tokens, (0, 1)), F.pad(mask, (1, 0)), lengths)
        values = self.trunk.value_head(hidden).float().squeeze(1) - self.mean
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    @torch.inference_mode()
    def centre(self, prompts: Sequence[str | Sequence[Message]], answers: Sequence[str]) -> None:
        """Shift the rewards so that their mean over the tokens of these answers is 0.

        Comparisons do not say where zero is, and a reward of the same sign for every token would
        make answers longer or shorter.
        """
        rows = self.encode(prompts, answers)
        empty = self.encode(prompts, [""] * len(answers))
        tokens = self.pad(rows)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
        stops = stop_tokens_of(self.tokenizer)
        ends = [1 if row[-1] in stops else 0 for row in rows]
        own = [len(row) - len(no) + end for row, no, end in zip(rows, empty, ends, strict=True)]
        starts = lengths - torch.tensor(own, device=tokens.device)
        mask = self._rewarded(tokens) & (places >= starts[:, None])
        if mask.any():
            self.mean.add_(self.rewards(tokens, mask)[mask].mean())

    def as_reward(self) -> Dense:
        """The model as a dense reward of an environment: every token is paid when it is chosen.

        What was read of a row is kept; weights that have changed are noticed.
        """
        return dense(_Stepwise(self), "token_reward")

    def _rewarded(self, tokens: Tensor) -> Tensor:
        """All tokens but padding and those that end an answer, shape (S, L), bool."""
        ends = torch.tensor([self.trunk.pad_token, *stop_tokens_of(self.tokenizer)])
        return ~torch.isin(tokens, ends.to(tokens.device))


class _Stepwise:
    """The rewards of the new tokens of a step."""

    def __init__(self, model: TokenReward):
        self.model = model
        self._cache: PrefixCache | None = None

    def __call__(self, batch: StepBatch) -> NDArray[np.float64]:
        """One reward for each row that has grown, shape (k,)."""
        trunk, tokenizer = self.model.trunk, self.model.tokenizer
        if batch.tokenizer.fingerprint != tokenizer.fingerprint:
            raise VocabularyMismatchError(
                f"tokens are rewarded in the vocabulary {tokenizer.name!r}, and the environment's "
                f"is {batch.tokenizer.name!r}: train a model that begins as the policy"
            )
        if self._cache is None or self._cache.shape != batch.tokens.shape:
            self._cache = trunk.new_cache(*batch.tokens.shape)
        values = trunk.value(batch.tokens, self._cache).double() - self.model.mean.double()
        ended = np.isin(batch.actions, stop_tokens_of(tokenizer))
        return np.where(ended, 0.0, values.cpu().numpy())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
