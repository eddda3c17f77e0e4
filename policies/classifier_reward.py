"""Any sequence classification model of `transformers` as a reward.

Sentiment and toxicity classifiers are such models, and so are most published reward models, which
have one label. They may read the answer alone or the prompt and the answer.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textenv.episode import Episode
from textenv.errors import (
    InvalidRewardError,
    ModelUnavailableError,
    RewardValueError,
    UnsupportedModelError,
)
from textenv.imports import optional
from textenv.records import short

UNBOUNDED = 2**31 - 1
"""Used where a tokenizer has no limit. It then says 10**30, which its own code refuses."""

Reader: TypeAlias = Callable[[str, str], tuple[str, ...]]
"""A prompt and an answer to what the model reads: one text, or a pair."""

Score: TypeAlias = Callable[[Tensor, int], Tensor]
"""Logits (n, labels) and the index of a label to scores (n,)."""


def answer_alone(prompt: str, answer: str) -> tuple[str, ...]:
    """The model reads the answer."""
    return (answer,)


def prompt_and_answer(prompt: str, answer: str) -> tuple[str, ...]:
    """The model reads both as a pair, with its own tokens between and around them."""
    return (prompt, answer)


def logit(logits: Tensor, label: int) -> Tensor:
    """The label's logit."""
    return logits[:, label]


def probability(logits: Tensor, label: int) -> Tensor:
    """The label's probability among all labels; of a single label, its sigmoid."""
    return logits[:, label].sigmoid() if logits.shape[1] == 1 else logits.softmax(1)[:, label]


def log_odds(logits: Tensor, label: int) -> Tensor:
    """log(p / (1 - p)) of the label's probability among all labels; of a single one, its logit."""
    if logits.shape[1] == 1:
        return logits[:, label]
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], 1)
    return logits[:, label] - others.logsumexp(1)


def independent_probability(logits: Tensor, label: int) -> Tensor:
    """The label's sigmoid, for models in which several labels may be true at once."""
    return logits[:, label].sigmoid()


class ClassifierReward:
    """The score of a label as a reward; it is its own deep copy.

    If a text is too long, its beginning is dropped; of a pair, the beginning of the longer part.
    The score of a text does not depend on the others in its batch, up to rounding: 1e-5 in fp32,
    but 0.01 in a model that is given in bf16. Texts are padded on the right, whatever the tokenizer
    says, with the model's own padding token. If it has none, a token is used that no text of the
    batch contains, since decoders look for the last other token.

    Args:
        model: With `config` and logits of shape (n, labels); it is set to `eval()`.
        tokenizer: The model's, of the `transformers` kind; its truncation side is set.
        label: Its name or index; may be left out where there is only one.
        score: `logit`, `log_odds`, `probability`, `independent_probability`, or a function of your
            own.
        read: `answer_alone`, `prompt_and_answer`, or a function of your own, for instance one that
            applies a chat template.
        batch_size: Texts that are read in one pass.
        max_length: Most tokens of a text, special tokens included; the model's own limit if None.

    Raises:
        InvalidRewardError: There is no such label.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        label: str | int | None = None,
        *,
        score: Score = logit,
        read: Reader = answer_alone,
        batch_size: int = 32,
        max_length: int | None = None,
    ):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.tokenizer.truncation_side = "left"
        self.label = _index_of(label, model.config.id2label)
        self.score = score
        self.read = read
        self.batch_size = batch_size
        self.max_length = _longest(model.config, tokenizer) if max_length is None else max_length

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        label: str | int | None = None,
        *,
        score: Score = logit,
        read: Reader = answer_alone,
        batch_size: int = 32,
        max_length: int | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Self:
        """The model and its tokenizer by their name on the hub, or from a folder.

        Args:
            name: Its name on the hub, or the folder it was saved in.
            label: See the class, as for all other arguments.
            score: See the class.
            read: See the class.
            batch_size: See the class.
            max_length: See the class.
            device: Where the model computes.
            dtype: Number type of the weights; fp32 if None, whatever they were saved in.

        Raises:
            InvalidRewardError: There is no such label.
            MissingExtraError: The package `transformers` is not installed.
            ModelUnavailableError: The model is not there and cannot be fetched.
            UnsupportedModelError: It is not a sequence classification model.
        """
        with optional("transformers", extra="huggingface", purpose=f"the classifier {name!r}"):
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name, dtype=dtype or torch.float32, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(name)
        except OSError as error:
            raise ModelUnavailableError(
                f"the classifier {name!r} is neither a folder with a model and its tokenizer nor "
                f"can it be fetched from the hub: {error}"
            ) from error
        except ValueError as error:
            raise UnsupportedModelError(
                f"{name!r} is not a sequence classification model: {error}"
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise UnsupportedModelError(
                f"{name!r} lacks the weights {short(missing)}: it was not trained as a sequence "
                "classification model, and its scores would be random"
            )
        return cls(
            model.to(device),
            tokenizer,
            label,
            score=score,
            read=read,
            batch_size=batch_size,
            max_length=max_length,
        )

    def __call__(self, episodes: Sequence[Episode]) -> list[float]:
        """One score for each episode."""
        prompts, answers = [e.prompt for e in episodes], [e.text for e in episodes]
        return self.score_texts(prompts, answers).tolist()

    @torch.inference_mode()
    def score_texts(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        """Scores of n answers, one to each prompt, shape (n,).

        Raises:
            RewardValueError: A text has no token at all.
        """
        rows = self._encode([self.read(p, a) for p, a in zip(prompts, answers, strict=True)])
        # Rows of like length go together, so that little is spent on padding.
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]["input_ids"]))
        scores = np.zeros(len(rows))
        for begin in range(0, len(rows), self.batch_size):
            chosen = order[begin : begin + self.batch_size]
            logits = self._logits([rows[row] for row in chosen]).float()
            scores[chosen] = self.score(logits, self.label).cpu().numpy()
        return scores

    def _encode(self, texts: Sequence[tuple[str, ...]]) -> list[dict[str, list[int]]]:
        """The tokenizer's output for each text or pair."""
        if not texts:
            return []
        parts = map(list, zip(*texts, strict=True))
        encoded = self.tokenizer(*parts, truncation=True, max_length=self.max_length)
        rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        return [row if row["input_ids"] else self._nothing(row) for row in rows]

    def _nothing(self, row: dict[str, list[int]]) -> dict[str, list[int]]:
        """What is read for an empty text to which the tokenizer adds nothing."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return {name: [0] for name in row} | {"input_ids": [token], "attention_mask": [1]}
        raise RewardValueError(
            "an answer is empty, and the model's tokenizer has no token for the beginning of a "
            "text: give a `read` that adds something to the answer, such as the prompt"
        )

    def _logits(self, rows: Sequence[dict[str, list[int]]]) -> Tensor:
        """Logits of some rows, shape (n, labels)."""
        config = self.model.config.get_text_config()
        given = config.pad_token_id
        pad = given
        if given is None:
            used = {token for row in rows for token in row["input_ids"]}
            pad = next((t for t in range(config.vocab_size) if t not in used), None)
            if pad is None:  # a small vocabulary, and all of it is in use
                return torch.cat([self.model(**self._padded([row], 0)).logits for row in rows])
        config.pad_token_id = pad
        try:
            logits: Tensor = self.model(**self._padded(rows, pad)).logits
        finally:
            config.pad_token_id = given
        return logits

    def _padded(self, rows: Sequence[dict[str, list[int]]], pad: int) -> dict[str, Tensor]:
        """Rows as tensors (n, L) on the model's device, right-padded; masks are 0 there."""
        length = max(len(row["input_ids"]) for row in rows)
        return {
            name: torch.tensor(
                [
                    row[name] + [pad if name == "input_ids" else 0] * (length - len(row[name]))
                    for row in rows
                ],
                device=self.model.device,
            )
            for name in rows[0]
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _index_of(label: str | int | None, names: dict[int, str]) -> int:
    if label is None and len(names) == 1:
        return 0
    for index, name in names.items():
        if label == index or label == name:
            return int(index)
    raise InvalidRewardError(
        f"the classifier has no label {label!r}: choose one of "
        + ", ".join(f"{name!r} ({index})" for index, name in names.items())
    )


def _longest(config: Any, tokenizer: Any) -> int:
    """The smaller of what the tokenizer and the positions allow."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(tokenizer.model_max_length, positions or UNBOUNDED, UNBOUNDED)
