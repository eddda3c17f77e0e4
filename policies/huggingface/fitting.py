"""Whether a model of transformers can be used, and what must be known about it."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from policies import adapters
from policies.huggingface.attention import ROWS, register_attention
from policies.rows import Recorded, WholeRows
from policies.sharing import whole_rows
from textenv.errors import UnsupportedModelError, VocabularyMismatchError
from textenv.tokenizers import Tokenizer

if TYPE_CHECKING:
    from policies.huggingface.encoder_decoder import EncoderDecoderPolicy
    from policies.huggingface.policy import HuggingFacePolicy

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, relative to the largest logit; rounding in other dtypes: 0.1."""


def check_vocabulary(model: Any, tokenizer: Tokenizer) -> int:
    """The width of the model's last hidden state, if its tables fit the tokenizer.

    Raises:
        UnsupportedModelError: The model has no language-modelling head.
        VocabularyMismatchError: Its tables are smaller than the vocabulary.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no head over the vocabulary: load it with "
            "AutoModelForCausalLM, or with AutoModelForSeq2SeqLM if it is an encoder-decoder"
        )
    known, read = head.weight.shape[0], model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > min(known, read):
        raise VocabularyMismatchError(
            f"the tokenizer {tokenizer.name!r} has {tokenizer.vocab_size} tokens, the model's head "
            f"{known} and its embedding {read}: use the model's own tokenizer, or "
            f"model.resize_token_embeddings({tokenizer.vocab_size}) if tokens were added"
        )
    return int(head.weight.shape[1])


def refuse_encoder_decoders(model: Any) -> None:
    """See `TransformersPolicy.check_kind`."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__} is an encoder-decoder: use EncoderDecoderPolicy"
        )


def refuse_causal_models(model: Any) -> None:
    """See `TransformersPolicy.check_kind`."""
    if not getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__} is no encoder-decoder: use HuggingFacePolicy, or load it with "
            "AutoModelForSeq2SeqLM"
        )


def default_context(config: Any) -> int:
    """Longest text that the model's positions allow."""
    # T5's positions are relative; `n_positions` is the longest text it was trained with.
    longest = getattr(config, "max_position_embeddings", None) or getattr(
        config, "n_positions", None
    )
    if longest is None:
        raise ValueError(
            f"the configuration of this {config.model_type} does not say how long a text may be: "
            "pass context=..."
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        # Their rotations change with the longest text of a batch once it passes this length, so
        # that the policy would no longer be a function of the observation.
        longest = rope.get("original_max_position_embeddings") or longest
    return int(longest)


def post_processing(config: Any) -> tuple[float, float | None]:
    """What some families do to logits: a factor (Cohere, Granite, T5) and a soft cap (Gemma)."""
    scale = getattr(config, "logit_scale", None) or 1.0
    if getattr(config, "scale_decoder_outputs", False):
        scale *= config.d_model**-0.5
    scale /= getattr(config, "logits_scaling", None) or 1.0
    return float(scale), getattr(config, "final_logit_softcapping", None)


def use_rows(model: Any) -> None:
    """Let the model's attention layers work on flat tokens when they are given rows.

    Raises:
        UnsupportedModelError: Its attention cannot be replaced.
    """
    register_attention()
    replace_attention(model, ROWS)


def replace_attention(model: Any, name: str) -> None:
    """Let the model's attention layers use the function of that name in transformers' register.

    Raises:
        UnsupportedModelError: They do not.
    """
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise _unsupported(model, "its attention does not go through transformers' register")


class Probe:
    """Two short texts, and what a model's own `forward` says of them, one text at a time.

    Comparing shows whether positions, attention and head are what they are taken for, in any model.
    """

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
    def compare(self, policy: "HuggingFacePolicy") -> None:
        """Compare with what the policy says when it reads both texts at once.

        Raises:
            UnsupportedModelError: They differ.
        """
        try:
            rows = whole_rows(self.lengths)
            attention = Recorded(WholeRows(rows))
            got = policy.logits(policy.decode(self.tokens, rows.positions, attention)).float()
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever a model makes of arguments it does not expect
            raise _unsupported(self.model, f"{type(error).__name__}: {error}") from error
        _check_difference(self.model, got, self.logits, "it reads two texts at once")
        config = self.model.config
        windowed = "sliding_attention" in (
            getattr(config, "layer_types", None) or ["sliding_attention"]
        )
        if getattr(config, "sliding_window", None) and windowed and attention.windows == {None}:
            raise _unsupported(self.model, "its attention is not told of its sliding window")


class SourceProbe:
    """Two short sources with answers, and what a model's own `forward` says of the answers."""

    @torch.inference_mode()
    def __init__(self, policy: "EncoderDecoderPolicy"):
        self.model = adapters.base_model(policy.model)
        tokens = [number * 7 % policy.vocab_size for number in range(1, 16)]
        tokens = [token for token in tokens if token != policy.separator] * 8
        device, start = self.model.device, policy.start_token
        self.ends, self.lengths = (4, 1), (6, 7)
        self.texts, logits = [], []
        for number, (end, length) in enumerate(zip(self.ends, self.lengths, strict=True)):
            source, answer = tokens[number : number + end], tokens[3 : 2 + length - end]
            self.texts.append([*source, policy.separator, *answer])
            own = self.model(
                input_ids=torch.tensor([[*source, policy.separator]], device=device),
                decoder_input_ids=torch.tensor([[start, *answer]], device=device),
                use_cache=False,
            )
            logits.append(own.logits[0, :, : policy.vocab_size].float())
        self.logits = logits

    @torch.inference_mode()
    def compare(self, policy: "EncoderDecoderPolicy") -> None:
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
            raise _unsupported(self.model, f"{type(error).__name__}: {error}") from error
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
        raise _unsupported(model, f"its logits differ by {difference:.3g} when {when}")


def _unsupported(model: Any, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(model).__name__} cannot be used as a policy: {why}. Models whose layers all have "
        "ordinary attention and absolute or rotary positions work, such as GPT-2, OPT, GPT-NeoX, "
        "Llama, Mistral, Qwen and Gemma; of encoder-decoders those like T5, BART and Pegasus"
    )
