"""Whether a model of transformers can be used, and what must be known about it."""

from typing import TYPE_CHECKING, Any

import torch

from policies.huggingface.attention import ROWS, register_attention
from policies.rows import Recorded, WholeRows
from policies.sharing import whole_rows
from textenv.errors import UnsupportedModelError, VocabularyMismatchError
from textenv.tokenizers import Tokenizer

if TYPE_CHECKING:
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
    if head is None or getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__} is no causal language model with a head over the vocabulary: "
            "load it with AutoModelForCausalLM; encoder-decoders are not supported"
        )
    known, read = head.weight.shape[0], model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > min(known, read):
        raise VocabularyMismatchError(
            f"the tokenizer {tokenizer.name!r} has {tokenizer.vocab_size} tokens, the model's head "
            f"{known} and its embedding {read}: use the model's own tokenizer, or "
            f"model.resize_token_embeddings({tokenizer.vocab_size}) if tokens were added"
        )
    return int(head.weight.shape[1])


def default_context(config: Any) -> int:
    """Longest text that the model's positions allow."""
    longest = getattr(config, "max_position_embeddings", None)
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
    """What some families do to logits: a factor (Cohere, Granite) and a soft cap (Gemma)."""
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    return float(scale), getattr(config, "final_logit_softcapping", None)


def use_rows(model: Any) -> None:
    """Let the model's attention layers work on flat tokens when they are given rows.

    Raises:
        UnsupportedModelError: Its attention cannot be replaced.
    """
    register_attention()
    model.set_attn_implementation(ROWS)
    if model.config._attn_implementation != ROWS:
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
        allowed = _TOLERANCE.get(policy.dtype, 0.1) * max(float(self.logits.abs().max()), 1e-3)
        difference = float((got - self.logits).abs().max())
        if not difference <= allowed and not self.logits.isnan().any():
            raise _unsupported(
                self.model, f"its logits differ by {difference:.3g} when it reads two texts at once"
            )
        config = self.model.config
        windowed = "sliding_attention" in (
            getattr(config, "layer_types", None) or ["sliding_attention"]
        )
        if getattr(config, "sliding_window", None) and windowed and attention.windows == {None}:
            raise _unsupported(self.model, "its attention is not told of its sliding window")


def _unsupported(model: Any, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(model).__name__} cannot be used as a policy: {why}. Models whose layers all have "
        "ordinary attention and absolute or rotary positions work, such as GPT-2, OPT, GPT-NeoX, "
        "Llama, Mistral, Qwen and Gemma"
    )
