"""A policy's network with a scalar head that says how good an answer is.

The model reads prompt and answer, and the head is applied to the hidden state of the last token, as
in Ouyang et al., "Training language models to follow instructions with human feedback" (2022),
arXiv:2203.02155. It is a reward like any other: an environment takes it as `reward=model`.
"""

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.checkpoint import load_policy
from policies.observations import batches_of_like_length, padded_rows
from policies.policy import Policy
from textenv.encoding import answered_ids, asked_ids
from textenv.episode import Episode
from textenv.errors import CheckpointError, TokenizerError
from textenv.files import reason
from textenv.frames import Message, Template, load_frame, saved_template, template_from
from textenv.tokenizers import Tokenizer, encode_answer

DESCRIPTION = "reward_model.json"
"""Lies beside the files of the trunk, which is saved as a policy."""

BATCH = 64
"""Answers that are scored in one pass, where no gradient is needed."""


class RewardModel(nn.Module):
    """Scores answers to prompts; higher is better, and only differences have a meaning.

    It reads the prompt, the answer and the stop token of its own tokenizer, whether or not the
    answer was ended by one. If a text is longer than its context, the beginning is dropped.

    A deep copy of it is the model itself: environments deep-copy their arguments, and a reward
    that keeps learning must stay one object.

    Args:
        trunk: The network; its `value_head` is the scalar head. It is used as it is, not copied.
        template: What wraps messages, such as `ModelTemplate.of(tokenizer)`; None for texts as they
            are. It is saved with the model.

    Attributes:
        trunk: The same.
        frame: The template for the trunk's tokenizer, or None.
        mean: Subtracted from the output of the head, a scalar; see `agents.feedback.normalise`.
        length_slope: Subtracted from the score of an answer for each of its tokens, a scalar; 0
            unless `agents.feedback.remove_length` has set it. `score_tokens` and
            `as_critic`, which know no answers, leave it out.

    Raises:
        TokenizerError: The trunk has no tokenizer.
    """

    mean: Tensor
    length_slope: Tensor

    def __init__(self, trunk: Policy, template: Template | None = None):
        super().__init__()
        if trunk.tokenizer is None:
            raise TokenizerError(
                "a reward model reads texts and this policy has no tokenizer: set policy.tokenizer"
            )
        self.trunk = trunk
        self.frame = load_frame(template, trunk.tokenizer)
        self.register_buffer("mean", torch.zeros((), device=trunk.device))
        self.register_buffer("length_slope", torch.zeros((), device=trunk.device))

    @classmethod
    def from_policy(cls, policy: Policy, seed: int = 0, template: Template | None = None) -> Self:
        """A model that begins as a copy of `policy`, usually the fine-tuned one, with a fresh head.

        The head's weights are drawn with variance 1 / (n_embd + 1), as in Stiennon et al.,
        "Learning to summarize from human feedback" (2020), arXiv:2009.01325.

        All weights are trained; of a policy with an adapter that and the head.

        Args:
            policy: Left as it is.
            seed: Seed of the head.
            template: What wraps messages.
        """
        trunk = copy.deepcopy(policy)
        # What an adapter was added to stays frozen.
        if not hasattr(getattr(trunk, "model", trunk), "peft_config"):
            trunk.requires_grad_(True)
        return cls.with_fresh_head(trunk, seed, template)

    @classmethod
    def with_fresh_head(
        cls, trunk: Policy, seed: int = 0, template: Template | None = None
    ) -> Self:
        """A model on `trunk` itself, such as a `HuggingFacePolicy.sibling`, with a fresh head.

        Args:
            trunk: Its value head is overwritten.
            seed: Seed of the head; see `from_policy`.
            template: What wraps messages.
        """
        weight = trunk.value_head.weight
        drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            weight.copy_(drawn / (weight.shape[1] + 1) ** 0.5)
            trunk.value_head.bias.zero_()
        return cls(trunk, template)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary that it reads."""
        assert self.trunk.tokenizer is not None
        return self.trunk.tokenizer

    def as_critic(self) -> Policy:
        """A copy of the trunk whose values are the model's scores: a critic for PPO to start from.

        A value has no answer's length to subtract `length_slope` for: PPO learns that part.

        See `SeparateValue`; Ouyang et al. (2022), appendix C.4.
        """
        critic = copy.deepcopy(self.trunk)
        with torch.no_grad():
            critic.value_head.bias.sub_(self.mean)
        return critic

    # ---------------------------------------------------------------- what it reads

    def encode(
        self, prompts: Iterable[str | Sequence[Message]], answers: Iterable[str]
    ) -> list[list[int]]:
        """Ids of each prompt with its answer, as the model reads them.

        Args:
            prompts: Texts, or messages if the model has a template; there a text is what the user
                says.
            answers: An answer to each.

        Raises:
            UnframedError: There are messages and the model has no template.
            FrameError: The template refuses messages.
        """
        tokenizer, frame = self.tokenizer, self.frame
        return [
            self._checked(
                asked_ids(prompt, tokenizer, frame, "a prompt")
                + answered_ids(answer, tokenizer, frame)
            )
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def pad(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Rows of ids as one tensor (S, L) on the model's device, right-padded."""
        return padded_rows(rows, self.trunk.pad_token).to(self.trunk.device)

    def _whole(self, prompt: Iterable[int], answer: Iterable[int]) -> list[int]:
        """Prompt, answer and the token that ends it."""
        stop = self.tokenizer.stop_token if self.frame is None else self.frame.end_of_turn
        return self._checked([*prompt, *answer, *(() if stop is None else (stop,))])

    def _checked(self, ids: list[int]) -> list[int]:
        """Ids without the beginning that does not fit."""
        if not ids:
            raise ValueError(
                "a prompt and its answer are both empty, and the tokenizer "
                f"{self.tokenizer.name!r} has no stop token: there is nothing to score"
            )
        return ids[-self.trunk.context :]

    # ---------------------------------------------------------------- scores

    def score_tokens(self, tokens: Tensor) -> Tensor:
        """Scores of whole texts, shape (S,), with gradient if enabled.

        Beginnings that rows have in common, such as one prompt of several answers, are read once.

        Args:
            tokens: Rows of ids, shape (S, L), int64, right-padded with `trunk.pad_token`.
        """
        scores: Tensor = self.trunk.value_head(self.trunk.read(tokens))
        return scores.float().squeeze(1) - self.mean

    def score_texts(
        self, prompts: Iterable[str | Sequence[Message]], answers: Iterable[str]
    ) -> NDArray[np.float64]:
        """Scores of n answers, one to each prompt, shape (n,); raises as `encode`."""
        answers = list(answers)
        scores = self._score(self.encode(prompts, answers))
        if self.length_slope == 0:
            return scores
        return self._less_length(scores, [len(encode_answer(self.tokenizer, a)) for a in answers])

    def score_ids(
        self, texts: Iterable[Sequence[int]], answers: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Scores of n texts as ids of its vocabulary, without the last stop token, shape (n,).

        Args:
            texts: Prompts and answers.
            answers: How many of the ids of each text are its answer.

        Raises:
            ValueError: Length is subtracted from the scores, and nobody says how long answers are.
        """
        scores = self._score([self._whole(ids, ()) for ids in texts])
        if self.length_slope == 0:
            return scores
        if answers is None:
            raise ValueError(
                "the model's scores are corrected for the length of answers: give `answers`, the "
                "number of ids of each that are its answer"
            )
        return self._less_length(scores, answers)

    def forward(self, episodes: Sequence[Episode]) -> list[float]:
        """Scores of finished episodes: the model as a reward.

        Ids of the model's own vocabulary are taken as they were chosen; texts of another one are
        encoded again.
        """
        scores = self._score([self._of_episode(episode) for episode in episodes])
        if self.length_slope != 0:
            scores = self._less_length(scores, [self._answer_length(e) for e in episodes])
        return scores.tolist()

    def _of_episode(self, episode: Episode) -> list[int]:
        if episode.tokenizer.fingerprint != self.tokenizer.fingerprint:
            messages = None if self.frame is None else episode.columns.get("messages")
            return self.encode([messages or episode.prompt], [episode.text])[0]
        stopped = episode.finish_reason == "stop"
        answer = episode.tokens[:-1] if stopped else episode.tokens
        return self._whole(episode.prompt_tokens.tolist(), answer.tolist())

    def _answer_length(self, episode: Episode) -> int:
        """Tokens of an answer in this vocabulary, without the one that ended it."""
        if episode.tokenizer.fingerprint != self.tokenizer.fingerprint:
            return len(encode_answer(self.tokenizer, episode.text))
        return len(episode.tokens) - (episode.finish_reason == "stop")

    def _less_length(
        self, scores: NDArray[np.float64], lengths: Sequence[int]
    ) -> NDArray[np.float64]:
        """The scores (n,) without what answers of these lengths, (n,), earn by their length."""
        return scores - self.length_slope.item() * np.array(lengths, dtype=np.float64)

    @torch.inference_mode()
    def _score(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        scores = np.zeros(len(rows))
        for chosen in batches_of_like_length(rows, BATCH):
            scored = self.score_tokens(self.pad([rows[row] for row in chosen]))
            scores[chosen] = scored.cpu().numpy()
        return scores

    # ---------------------------------------------------------------- on disk

    def save(self, folder: str | Path) -> Path:
        """Write the model into `folder`, as safetensors and JSON.

        The trunk is saved as a policy, so that a value network can begin with it.
        """
        folder = self.trunk.save(folder)
        description: dict[str, Any] = {
            "mean": self.mean.item(),
            "length_slope": self.length_slope.item(),
        }
        if self.frame is not None:
            description["template"] = saved_template(self.frame.template)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")
        return folder

    @classmethod
    def load(
        cls,
        folder: str | Path,
        tokenizer: Tokenizer | None = None,
        *,
        trunk: Policy | None = None,
    ) -> Self:
        """Read a model that `save` wrote.

        Args:
            folder: Where it was saved.
            tokenizer: Its vocabulary, if `load_tokenizer` cannot find it by name.
            trunk: Takes the weights, such as a sibling of the policy or a network of your own; if
                None, a policy is made.

        Raises:
            CheckpointError: Files are missing or damaged, or belong to a policy that is not a
                reward model.
            VocabularyMismatchError: It was made with another vocabulary.
        """
        path = Path(folder) / DESCRIPTION
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            mean, saved = float(described["mean"]), described.get("template")
            slope = float(described.get("length_slope", 0.0))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{folder} holds no reward model that can be read: {reason(error)}; "
                "`textenv reward-model` makes one"
            ) from error
        if trunk is None:
            trunk = load_policy(folder, tokenizer)
        else:
            trunk.load_weights(folder)
        model = cls(trunk, None if saved is None else template_from(saved))
        model.mean.fill_(mean)
        model.length_slope.fill_(slope)
        return model
