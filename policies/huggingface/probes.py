"""Does a policy compute what the model's own `forward` does? Two short texts are compared.

Comparing shows whether positions, attention and head are what they are taken for, in any model.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies import adapters
from policies.huggingface.base import TransformersPolicy
from policies.huggingface.checks import unsupported
from policies.rows import Recorded, Rows, WholeRows
from policies.sharing import whole_rows
from textenv.errors import UnsupportedModelError

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, relative to the largest logit; rounding in other dtypes: 0.1."""


class Probe:
    """Two short texts, and what a model's own `forward` says of them, one text at a time."""

    @torch.inference_mode()
    def __init__(self, model: Any, vocab_size: int):
        self.model = model
        tokens = [number * 7 % vocab_size for number in range(1, 9)]
        texts = [tokens[:5], tokens[5:]]
        self.tokens = torch.tensor(tokens, device=model.device)
        self.lengths = torch.tensor([len(text) for text in texts], device=model.device)
        logits = []
        for text in self.tokens.split(self.lengths.tolist()):
            mask = torch.ones_like(text)[None]
            own = model(input_ids=text[None], attention_mask=mask, use_cache=False)
            logits.append(own.logits[0, :, :vocab_size])
        self.logits = torch.cat(logits).float()

    @torch.inference_mode()
    def compare(
        self, policy: TransformersPolicy, decode: Callable[[Tensor, Tensor, Rows], Tensor]
    ) -> None:
        """Compare with what the policy says when it reads both texts at once.

        Args:
            policy: Gives the logits.
            decode: Flat tokens (N,), their positions (N,) and rows to hidden states (N, n_embd).

        Raises:
            UnsupportedModelError: They differ.
        """
        try:
            rows = whole_rows(self.lengths)
            attention = Recorded(WholeRows(rows))
            got = policy.logits(decode(self.tokens, rows.positions, attention)).float()
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever a model makes of arguments it does not expect
            raise unsupported(self.model, f"{type(error).__name__}: {error}") from error
        _check_difference(self.model, got, self.logits, "it reads two texts at once")
        config = self.model.config
        windowed = "sliding_attention" in (
            getattr(config, "layer_types", None) or ["sliding_attention"]
        )
        if getattr(config, "sliding_window", None) and windowed and attention.windows == {None}:
            raise unsupported(self.model, "its attention is not told of its sliding window")


class SourceProbe:
    """Two short sources with answers, and what a model's own `forward` says of the answers.

    Args:
        policy: Around an encoder-decoder.
        separator: The token that ends a source.
        start_token: What the decoder reads in its place.
    """

    @torch.inference_mode()
    def __init__(self, policy: TransformersPolicy, separator: int, start_token: int):
        self.model = adapters.base_model(policy.model)
        tokens = [number * 7 % policy.vocab_size for number in range(1, 16)]
        tokens = [token for token in tokens if token != separator] * 8
        device = self.model.device
        self.ends, self.lengths = (4, 1), (6, 7)
        self.texts, logits = [], []
        for number, (end, length) in enumerate(zip(self.ends, self.lengths, strict=True)):
            source, answer = tokens[number : number + end], tokens[3 : 2 + length - end]
            self.texts.append([*source, separator, *answer])
            own = self.model(
                input_ids=torch.tensor([[*source, separator]], device=device),
                decoder_input_ids=torch.tensor([[start_token, *answer]], device=device),
                use_cache=False,
            )
            logits.append(own.logits[0, :, : policy.vocab_size].float())
        self.logits = logits

    @torch.inference_mode()
    def compare(self, policy: TransformersPolicy) -> None:
        """Compare with what the policy says of both, in whole rows and step by step.

        Raises:
            UnsupportedModelError: They differ.
        """
        context, policy.context = policy.context, max(self.lengths)  # it may be shorter
        try:
            whole = policy.hidden_states(
                torch.tensor([t for text in self.texts for t in text], device=policy.device),
                torch.tensor(self.lengths, device=policy.device),
            ).split(list(self.lengths))
            ends = zip(whole, self.ends, strict=True)
            got = policy.logits(torch.cat([hidden[end:] for hidden, end in ends])).float()
            cache, steps = policy.new_cache(2, max(self.lengths)), []
            for missing in (1, 0):
                rows = np.full(cache.shape, policy.pad_token)
                for row, text in zip(rows, self.texts, strict=True):
                    row[: len(text) - missing] = text[: len(text) - missing]
                steps.append(policy.logits(policy.last_hidden(rows, cache)).float())
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever a model makes of arguments it does not expect
            raise unsupported(self.model, f"{type(error).__name__}: {error}") from error
        finally:
            policy.context = context
        _check_difference(self.model, got, torch.cat(self.logits), "it reads two texts at once")
        for missing, step in zip((1, 0), steps, strict=True):
            own = torch.stack([logits[len(logits) - 1 - missing] for logits in self.logits])
            _check_difference(self.model, step, own, "its rows stand at different places")


def _check_difference(model: Any, got: Tensor, own: Tensor, when: str) -> None:
    allowed = _TOLERANCE.get(model.dtype, 0.1) * max(float(own.abs().max()), 1e-3)
    difference = float((got - own).abs().max())
    if not difference <= allowed and not own.isnan().any():
        raise unsupported(model, f"its logits differ by {difference:.3g} when {when}")
