"""May this model be used? Architecture, vocabulary, longest text, what is done to its logits."""

from typing import Any

from textenv.errors import UnsupportedModelError, VocabularyMismatchError
from textenv.tokenizers import Tokenizer


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
    """See `TransformersPolicy.check_architecture`."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__} is an encoder-decoder: use EncoderDecoderPolicy"
        )


def refuse_causal_models(model: Any) -> None:
    """See `TransformersPolicy.check_architecture`."""
    if not getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not an encoder-decoder: use HuggingFacePolicy, or load it "
            "with AutoModelForSeq2SeqLM"
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


def unsupported(model: Any, why: str) -> UnsupportedModelError:
    """What to raise for a model that computes something else than it is taken for."""
    return UnsupportedModelError(
        f"{type(model).__name__} cannot be used as a policy: {why}. docs/huggingface.md lists "
        "families that can. Any causal network is a policy, without the speed, as a subclass of "
        "policies.Policy with a `forward` (docs/networks.md)"
    )
