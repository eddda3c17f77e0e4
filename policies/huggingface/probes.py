"""Does a policy compute what the model's own `forward` does? Short texts are compared.

Comparing shows whether positions, attention and head are what they are taken for, in any model:
when a text is read alone, beside others, and step by step, with a row that begins anew.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from policies.policy import Policy
from policies.rows import Recorded, Rows
from policies.sharing import whole_rows
from policies.whole_rows import WholeRows
from textenv.errors import UnsupportedModelError

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, relative to the largest logit; rounding in other dtypes: 0.1."""

_RAISES, _SEVERAL = "it raises", "it reads several texts at once"


class _Text(NamedTuple):
    ids: list[int]
    logits: Tensor
    """The model's own for the last k places of the text, shape (k, V), fp32."""


class Probe:
    """Four short texts, and what a model's own `forward` says of them, one text at a time.

    Args:
        model: Such as the model inside a policy, with the adapters that are active.
        texts: Ids of each text; the last three places of the first three have logits.
        forward: The model's logits (k, V) for the last k places of a text.

    Raises:
        UnsupportedModelError: The model's own `forward` fails.
    """

    @torch.inference_mode()
    def __init__(self, model: Any, texts: list[list[int]], forward: Callable[[list[int]], Tensor]):
        self.model = model
        try:
            self._texts = [_Text(ids, forward(ids).float()) for ids in texts]
        except Exception as error:  # whatever it makes of a text and no further arguments
            raise UnsupportedModelError(
                f"the `forward` of {type(model).__name__} cannot read a text of {len(texts[0])} "
                f"tokens: {_RAISES} {type(error).__name__}: {error}"
            ) from error

    @torch.inference_mode()
    def difference(self, policy: Policy) -> str | None:
        """What `policy` does not compute as the model's own `forward` does; None if all is equal.

        Args:
            policy: Around the model.
        """
        # The context may be shorter than the texts.
        context, policy.context = policy.context, max(len(text.ids) for text in self._texts)
        try:
            return self._in_whole_rows(policy) or self._step_by_step(policy)
        except UnsupportedModelError as error:
            return str(error)
        except Exception as error:  # whatever a model makes of arguments it does not expect
            return f"{_RAISES} {type(error).__name__}: {error}"
        finally:
            policy.context = context

    def _in_whole_rows(self, policy: Policy) -> str | None:
        lengths = [len(text.ids) for text in self._texts]
        hidden = policy.hidden_states(
            torch.tensor([token for text in self._texts for token in text.ids]).to(policy.device),
            torch.tensor(lengths, device=policy.device),
        ).split(lengths)
        pairs = zip(hidden, self._texts, strict=True)
        got = policy.logits(torch.cat([h[-len(text.logits) :] for h, text in pairs]))
        expected = torch.cat([text.logits for text in self._texts])
        return self.unlike(got, expected, _SEVERAL)

    def _step_by_step(self, policy: Policy) -> str | None:
        first, second, third, other = self._texts
        cache = policy.new_cache(3, max(len(text.ids) for text in self._texts))
        for rows, missing, when in (
            ((first, second, third), 2, "it reads beginnings of texts"),
            ((first, second, third), 1, "its rows go on by a token each, at different places"),
            ((other, second, third), 0, "a row begins anew while others go on"),
        ):
            observations = np.full(cache.shape, policy.pad_token)
            for row, text in zip(observations, rows, strict=True):
                end = len(text.ids) - missing
                row[:end] = text.ids[:end]
            got = policy.logits(policy.last_hidden(observations, cache))
            expected = torch.stack([text.logits[-1 - missing] for text in rows])
            if (found := self.unlike(got, expected, when)) is not None:
                return found
        return None

    def unlike(self, got: Tensor, own: Tensor, when: str) -> str | None:
        """Says by how much logits differ; None if they do not."""
        allowed = _TOLERANCE.get(self.model.dtype, 0.1) * max(float(own.abs().max()), 1e-3)
        difference = float((got.float() - own).abs().max())
        if difference <= allowed or own.isnan().any():
            return None
        return f"its logits differ by {difference:.3g} when {when}"


class CausalProbe(Probe):
    """Of a causal model.

    Args:
        model: The model.
        vocab_size: Tokens that the policy knows.
    """

    @torch.inference_mode()
    def __init__(self, model: Any, vocab_size: int):
        self.vocab_size = vocab_size
        ids = _some_ids(vocab_size)
        super().__init__(model, [ids[:5], ids[5:9], ids[9:12], ids[12:]], self._own)
        # Found out now: later the model's attention is another one.
        shorter, whole = self._own(ids[:4]), self._texts[0].logits[:4]
        self._causal = self.unlike(shorter, whole, "") is None

    def _own(self, ids: list[int]) -> Tensor:
        text = torch.tensor([ids], device=self.model.device)
        own = self.model(input_ids=text, attention_mask=torch.ones_like(text), use_cache=False)
        # peft also returns the logits of virtual tokens, in front.
        logits: Tensor = own.logits[0, -len(ids) :, : self.vocab_size]
        return logits

    @torch.inference_mode()
    def difference_and_reason(
        self, policy: Policy, decode: Callable[[Tensor, Tensor, Rows], Tensor]
    ) -> str | None:
        """As `difference`, a text alone first; says why, where that can be seen.

        Args:
            policy: Gives the logits.
            decode: Flat tokens (N,), their positions (N,) and rows to hidden states (N, n_embd).
        """
        length = torch.tensor([len(self._texts[0].ids)], device=self.model.device)
        attention = Recorded(WholeRows(whole_rows(length)))
        try:
            alone = self._alone(policy, decode, attention)
        except UnsupportedModelError as error:
            return str(error)
        found = alone or self.difference(policy)
        if found is None:
            return self._lost_window(attention)
        raised = found.startswith(_RAISES)
        why = self._why_of_kind() or (None if raised else self._why_of_layers(policy, attention))
        if why is None and not raised:  # by exclusion
            if alone is not None:  # as with Doge, whose masks are made of values
                why = "its attention uses more than queries, keys, values, scale, window and cap"
            elif found.endswith(_SEVERAL):
                why = "it mixes neighbouring tokens outside its attention, whatever their rows"
        return found if why is None else f"{why} ({found})"

    def _alone(self, policy: Policy, decode: Any, attention: Recorded) -> str | None:
        ids, own = self._texts[0]
        positions = torch.arange(len(ids), device=self.model.device)
        try:
            hidden = decode(torch.tensor(ids, device=self.model.device), positions, attention)
            return self.unlike(policy.logits(hidden), own, "it reads a text")
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever a model makes of arguments it does not expect
            return f"{_RAISES} {type(error).__name__}: {error}"

    def _why_of_kind(self) -> str | None:
        if not self._causal:
            return "it is not causal: later tokens change what it says of earlier ones"
        if "position_ids" not in inspect.signature(self.model.base_model.forward).parameters:
            return "it numbers positions itself: its `forward` takes no `position_ids`"
        return None

    def _why_of_layers(self, policy: Policy, attention: Recorded) -> str | None:
        ids, own = self._texts[0]
        count = getattr(self.model.config.get_text_config(), "num_hidden_layers", 0)
        if len(attention.layers) < count:
            return (
                f"only {len(attention.layers)} of its {count} layers attend; the others keep a "
                "state or mix neighbouring tokens, whatever rows these belong to"
            )
        if len(attention.prefix) > len(attention.layers):
            return "its layers attend more than once, and keys are kept once a layer"
        text = torch.tensor([ids], device=self.model.device)
        decoder = self.model.base_model
        hidden = decoder(text, attention_mask=torch.ones_like(text)).last_hidden_state[0]
        if self.unlike(policy.logits(hidden), own, "") is not None:
            return "its head is more than a linear layer on the last hidden state"
        return None

    def _lost_window(self, attention: Recorded) -> str | None:
        config = self.model.config
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
        windowed = getattr(config, "sliding_window", None) and "sliding_attention" in kinds
        lost = windowed and attention.windows == {None}
        return "its attention is not told of its sliding window" if lost else None


class SourceProbe(Probe):
    """Of an encoder-decoder: short sources with answers.

    Args:
        model: The model.
        vocab_size: Tokens that the policy knows.
        separator: The token that ends a source.
        start_token: What the decoder reads in its place.
    """

    def __init__(self, model: Any, vocab_size: int, separator: int, start_token: int):
        self.vocab_size, self.separator, self.start_token = vocab_size, separator, start_token
        ids = [token for token in _some_ids(vocab_size) if token != separator] * 8
        shapes = ((4, 2), (1, 3), (2, 2), (3, 2))  # tokens of source and answer
        texts = [
            [*ids[number : number + source], separator, *ids[3 + number : 3 + number + answer]]
            for number, (source, answer) in enumerate(shapes)
        ]
        super().__init__(model, texts, self._own)

    def _own(self, ids: list[int]) -> Tensor:
        end, device = ids.index(self.separator), self.model.device
        own = self.model(
            input_ids=torch.tensor([ids[: end + 1]], device=device),
            decoder_input_ids=torch.tensor([[self.start_token, *ids[end + 1 :]]], device=device),
            use_cache=False,
        )
        logits: Tensor = own.logits[0, :, : self.vocab_size]
        return logits


def _some_ids(vocab_size: int) -> list[int]:
    return [(number * number + number // 2) % vocab_size for number in range(1, 17)]
