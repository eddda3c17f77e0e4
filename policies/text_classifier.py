"""A policy's network with a linear layer that says which label a text has: GPT-1's classifier.

The layer W_y is applied to the last token's hidden state, with a softmax over the labels (Radford
et al., "Improving Language Understanding by Generative Pre-Training", 2018, section 3.2). Without
labels it is a regression: one number for a text. `agents.supervised.classification_steps` trains
it; `LabelScore` makes a reward, a judge, a labeller or a safety classifier of it.
"""

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from policies.checkpoint import load_policy
from policies.classifier_reward import Reader, Score, answer_alone, log_odds, logit, probability
from policies.observations import batches_of_like_length, padded_rows
from policies.policy import Policy
from policies.policy_files import write_tensors
from textenv.episode import Episode
from textenv.errors import CheckpointError, InvalidRewardError, TokenizerError
from textenv.files import reason
from textenv.tokenizers import Tokenizer, encode_prompt

DESCRIPTION, HEAD = "classifier.json", "classifier.safetensors"
"""Lie beside the files of the trunk, which is saved as a policy."""

BATCH = 64
"""Texts that are read in one pass, where no gradient is needed."""


class TextClassifier(nn.Module):
    """Says which label a text has, or a number of it.

    It reads the text and the tokenizer's stop token, at which the state of the whole text is taken.
    If a text is longer than the context, its beginning is dropped.

    Args:
        trunk: The network; it is used as it is, not copied.
        labels: Names of the labels, at least two; none for a regression.
        seed: Seed of the linear layer, whose weights are drawn with deviation 0.02, as in GPT-1.

    Attributes:
        trunk: The same.
        labels: The same.
        head: The linear layer W_y, from a hidden state to a logit for each label, or to the number.

    Raises:
        TokenizerError: The trunk has no tokenizer.
        ValueError: There is one label, or two are equal.
    """

    def __init__(self, trunk: Policy, labels: Sequence[str] = (), seed: int = 0):
        super().__init__()
        if trunk.tokenizer is None:
            raise TokenizerError(
                "a classifier reads texts and this policy has no tokenizer: set policy.tokenizer"
            )
        self.labels = tuple(labels)
        if len(self.labels) == 1 or len(set(self.labels)) < len(self.labels):
            raise ValueError(
                f"the labels are {list(self.labels)}: there must be two or more different ones, or "
                "none for a regression"
            )
        self.trunk = trunk
        width = trunk.value_head.in_features
        self.head = nn.Linear(width, max(len(self.labels), 1), device=trunk.device)
        drawn = torch.randn(self.head.weight.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.head.weight.copy_(0.02 * drawn)
            self.head.bias.zero_()

    @classmethod
    def from_policy(cls, policy: Policy, labels: Sequence[str] = (), seed: int = 0) -> Self:
        """A classifier that begins as a copy of a pretrained policy.

        All weights are trained; of a policy with an adapter that and the head.

        Args:
            policy: Left as it is.
            labels: See the class.
            seed: See the class.
        """
        trunk = copy.deepcopy(policy)
        # What an adapter was added to stays frozen.
        if not hasattr(getattr(trunk, "model", trunk), "peft_config"):
            trunk.requires_grad_(True)
        return cls(trunk, labels, seed)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary that it reads."""
        assert self.trunk.tokenizer is not None
        return self.trunk.tokenizer

    # ---------------------------------------------------------------- what it says

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of each text as they are read, with the stop token if there is one."""
        stop = self.tokenizer.stop_token
        last = [] if stop is None else [stop]
        rows = [[*encode_prompt(self.tokenizer, text), *last] for text in texts]
        if not all(rows):
            raise ValueError(
                f"a text is empty, and the tokenizer {self.tokenizer.name!r} has no stop token: "
                "there is nothing to read"
            )
        return [ids[-self.trunk.context :] for ids in rows]

    def pad(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Rows of ids as one tensor (S, L) on the model's device, right-padded."""
        return padded_rows(rows, self.trunk.pad_token).to(self.trunk.device)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of texts, (S, labels), or numbers (S, 1); with gradient if enabled.

        Args:
            tokens: Rows of ids, shape (S, L), int64, right-padded with `trunk.pad_token`.
        """
        logits: Tensor = self.head(self.trunk.read(tokens))
        return logits.float()

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits of n texts, shape (n, labels), or numbers (n, 1), float32, without gradient."""
        rows = self.encode(texts)
        found = torch.zeros(len(rows), self.head.out_features)
        for chosen in batches_of_like_length(rows, BATCH):
            found[chosen] = self(self.pad([rows[row] for row in chosen])).cpu()
        return found.clone()

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label for n texts, shape (n, labels); rows sum to 1.

        Raises:
            ValueError: It is a regression.
        """
        if not self.labels:
            raise ValueError("a regression has no labels: its numbers are values(texts)")
        return self.logits(texts).double().softmax(1).numpy()

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text.

        Raises:
            ValueError: It is a regression.
        """
        return [self.labels[place] for place in self.probabilities(texts).argmax(1)]

    def values(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The number of each text, shape (n,), of a regression.

        Raises:
            ValueError: It has labels.
        """
        if self.labels:
            raise ValueError(f"this classifier has the labels {', '.join(self.labels)}: predict")
        return self.logits(texts)[:, 0].double().numpy()

    # ---------------------------------------------------------------- on disk

    def save(self, folder: str | Path) -> Path:
        """Write the model into `folder`, as safetensors and JSON; the trunk as a policy."""
        folder = self.trunk.save(folder)
        state = {name: weight.contiguous() for name, weight in self.head.state_dict().items()}
        write_tensors(state, folder / HEAD)
        description = json.dumps({"labels": list(self.labels)}, indent=2, ensure_ascii=False)
        (folder / DESCRIPTION).write_text(description, encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path, tokenizer: Tokenizer | None = None) -> Self:
        """Read a model that `save` wrote.

        Args:
            folder: Where it was saved.
            tokenizer: Its vocabulary, if `load_tokenizer` cannot find it by name.

        Raises:
            CheckpointError: Files are missing or damaged, or belong to a policy that is no
                classifier.
            VocabularyMismatchError: It was made with another vocabulary.
        """
        path = Path(folder)
        try:
            labels = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))["labels"]
            weights = load_file(path / HEAD)
            model = cls(load_policy(folder, tokenizer), [str(label) for label in labels])
            model.head.load_state_dict(weights)
        except CheckpointError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} holds no classifier that can be read: {reason(error)}; "
                "`textenv classifier` makes one"
            ) from error
        return model


def is_classifier(folder: str | Path) -> bool:
    """Whether a `TextClassifier` was saved there."""
    return (Path(folder) / DESCRIPTION).exists()


@dataclass(frozen=True)
class LabelScore:
    """What a classifier says of a label, as a reward and as whatever else scores answers.

        reward = LabelScore(classifier, "good")          # an environment's reward
        reward.judge                                     # a judge, for evaluation
        reward.labeller                                  # a labeller, for rankings
        LabelScore(classifier, "toxic").of_texts         # a classifier for refuse_toxic

    Attributes:
        classifier: The classifier.
        label: Which label; None for a regression.
        score: `log_odds`, `logit`, `probability` or a function of your own; log-odds grow without
            end and probabilities do not, so log-odds still tell the best answers apart.
        read: `answer_alone`, or `prompt_and_answer` to read them as one text.

    Raises:
        InvalidRewardError: There is no such label.
    """

    classifier: TextClassifier
    label: str | None = None
    score: Score = log_odds
    read: Reader = answer_alone

    def __post_init__(self) -> None:
        labels = self.classifier.labels
        if (self.label is None) != (not labels) or (labels and self.label not in labels):
            raise InvalidRewardError(
                f"the classifier has no label {self.label!r}: choose one of {', '.join(labels)}"
                if labels
                else f"the classifier is a regression without labels: leave out {self.label!r}"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary that it reads."""
        return self.classifier.tokenizer

    @property
    def frame(self) -> None:
        """Nothing wraps what it reads."""
        return None

    def score_texts(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        """Scores of n answers, one to each prompt, shape (n,)."""
        return self._of(["".join(self.read(p, a)) for p, a in zip(prompts, answers, strict=True)])

    def __call__(self, episodes: Sequence[Episode]) -> list[float]:
        """One score for each episode."""
        return self.score_texts([e.prompt for e in episodes], [e.text for e in episodes]).tolist()

    def judge(self, prompt: str, answer: str) -> float:
        """The score of one answer: an `agents.evaluation.Judge`."""
        return float(self.score_texts([prompt], [answer])[0])

    def labeller(self, prompt: str, answers: Sequence[str]) -> list[float]:
        """Scores of the answers to a prompt: an `agents.feedback.Labeller`."""
        return self.score_texts([prompt] * len(answers), answers).tolist()

    def of_texts(self, texts: Sequence[str]) -> list[float]:
        """The label's probability for each text: an `agents.evaluation.ToxicityClassifier`.

        Of a regression its numbers.
        """
        score = probability if self.label is not None else logit
        return self._of(texts, score).tolist()

    def _of(self, texts: Sequence[str], score: Score | None = None) -> NDArray[np.float64]:
        if not texts:
            return np.zeros(0)
        logits = self.classifier.logits(texts).double()
        if self.label is None:  # a number is its own score
            return logits[:, 0].numpy()
        place = self.classifier.labels.index(self.label)
        return (score or self.score)(logits, place).numpy()
