"""Language models and their tokenizers from the hub, a folder or a GGUF file."""

from pathlib import Path
from typing import Any

import torch

from textenv.errors import (
    ModelUnavailableError,
    TokenizerError,
    TokenizerUnavailableError,
    UnsupportedModelError,
)
from textenv.imports import missing_extra, optional
from textenv.tokenizers import SourceTokenizer, Tokenizer, load_tokenizer, prompt_frame
from textenv.tokenizers.huggingface import HuggingFaceTokenizer, Stop, ends_of_model

_KINDS = {
    "AutoModelForCausalLM": "a causal language model (encoder-decoders such as T5 and BART are for "
    "EncoderDecoderPolicy)",
    "AutoModelForSeq2SeqLM": "an encoder-decoder (causal language models are for "
    "HuggingFacePolicy)",
}
_PATIENCE = 10
"""Seconds that the hub has to answer."""


def load_model(
    name_or_folder: str | Path,
    auto_class: str = "AutoModelForCausalLM",
    *,
    gguf_file: str | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    **options: Any,
) -> Any:
    """A language model of transformers.

    Args:
        name_or_folder: Its name on the hub, or the folder it was saved in.
        auto_class: `"AutoModelForCausalLM"`, or `"AutoModelForSeq2SeqLM"` for encoder-decoders.
        gguf_file: The file of quantised weights to read, of those that are there.
        dtype: Number type of the weights; fp32 if None, which does not round small steps away.
        revision: Branch, tag or commit on the hub.
        **options: Further arguments of that class's `from_pretrained`.

    Raises:
        MissingExtraError: transformers is not installed, or what it needs to read GGUF files.
        ModelUnavailableError: The model is not on this machine and cannot be fetched.
        UnsupportedModelError: The model has another architecture.
    """
    purpose = f"model {str(name_or_folder)!r}"
    with optional("transformers", extra="huggingface", purpose=purpose):
        import transformers
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    if revision is not None:
        options["revision"] = revision
    _check_hub(name_or_folder, revision)
    try:
        model = getattr(transformers, auto_class).from_pretrained(
            name_or_folder, dtype=dtype or torch.float32, **options
        )
    except ImportError as error:
        wanted = f"a package that is not installed, which transformers names ({error})"
        raise missing_extra(wanted, extra="huggingface", purpose=purpose) from error
    except OSError as error:
        raise _unavailable(name_or_folder, error) from error
    except (ValueError, KeyError) as error:
        folder = Path(name_or_folder)
        if folder.is_dir() and not (folder / (gguf_file or "config.json")).exists():
            raise _unavailable(name_or_folder, error) from error
        raise UnsupportedModelError(
            f"model {str(name_or_folder)!r} cannot be read as {_KINDS[auto_class]}; encoders and "
            f"damaged files are refused. transformers says: {error!s:.500}"
        ) from error
    _check_architecture(model, name_or_folder, auto_class)
    if gguf_file is not None:
        # The weights have been expanded. Only these marks of a quantised model are left, and they
        # would prevent saving.
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model


def is_encoder_decoder(name_or_folder: str | Path) -> bool:
    """Whether the configuration of a model says that it has an encoder and a decoder.

    Raises:
        MissingExtraError: transformers is not installed.
        ModelUnavailableError: The model is not on this machine and cannot be fetched.
        UnsupportedModelError: transformers does not know this kind of model.
    """
    with optional("transformers", extra="huggingface", purpose=f"model {str(name_or_folder)!r}"):
        from transformers import AutoConfig
    _check_hub(name_or_folder, None)
    try:
        config = AutoConfig.from_pretrained(name_or_folder)
    except OSError as error:
        raise _unavailable(name_or_folder, error) from error
    except (ValueError, KeyError) as error:
        raise UnsupportedModelError(
            f"model {str(name_or_folder)!r} is of a kind that is not known here. transformers "
            f"says: {error!s:.500}"
        ) from error
    return bool(getattr(config, "is_encoder_decoder", False))


def _check_architecture(model: Any, name_or_folder: str | Path, auto_class: str) -> None:
    """Refuse a decoder that transformers took out of an encoder-decoder without saying so.

    Raises:
        UnsupportedModelError: `model` is such a decoder.
    """
    from transformers.models.auto import modeling_auto

    both = set(modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values())
    saved = both.intersection(model.config.architectures or ())
    if saved and type(model).__name__ not in both:
        raise UnsupportedModelError(
            f"model {str(name_or_folder)!r} is an encoder-decoder ({saved.pop()}) and cannot be "
            f"read as {_KINDS[auto_class]}"
        )


def _check_hub(name_or_folder: str | Path, revision: str | None) -> None:
    """Fail at once if the hub cannot be reached; transformers would try for a minute.

    Raises:
        ModelUnavailableError: The hub cannot be reached, and neither a folder nor its cache has the
            model.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    name = str(name_or_folder)
    if Path(name).exists() or try_to_load_from_cache(name, "config.json", revision=revision):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # its class depends on the HTTP library of the hub's package
        raise _unavailable(name_or_folder, error) from error


def _unavailable(name_or_folder: str | Path, error: Exception) -> ModelUnavailableError:
    folder = Path(name_or_folder)
    if folder.is_dir():
        return ModelUnavailableError(
            f"the folder {str(folder)!r} holds no model that can be read; "
            "model.save_pretrained(folder) writes config.json and model.safetensors (a GGUF file "
            f"is named by gguf_file=...). transformers says: {error!s:.500}"
        )
    return ModelUnavailableError(
        f"model {str(name_or_folder)!r}: there is no such folder, and the hub cannot be reached, "
        "asks for a login, or has none of that name. Check the spelling; without a network "
        "(or with HF_HUB_OFFLINE=1) copy the model's folder to this machine and give its path. "
        f"transformers says: {error!s:.500}"
    )


def load_models_tokenizer(
    name_or_folder: str | Path,
    *,
    gguf_file: str | None = None,
    revision: str | None = None,
) -> Any:
    """The tokenizer of transformers in a model's folder or repository.

    Raises:
        TokenizerUnavailableError: There is no tokenizer.
    """
    from transformers import AutoTokenizer

    options = {"gguf_file": gguf_file, "revision": revision}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return AutoTokenizer.from_pretrained(name_or_folder, **given)
    except Exception as error:  # transformers raises many classes here, some of them very wide
        raise TokenizerUnavailableError(
            f"the tokenizer of model {str(name_or_folder)!r} cannot be loaded: copy its files into "
            f"the model's folder, or pass tokenizer=... . transformers says: {error!s:.500}"
        ) from error


def as_source_tokenizer(
    tokenizer: Any, stop: Stop | None = None, *, bos: bool = True, model: Any = None
) -> SourceTokenizer:
    """`as_tokenizer` for encoder-decoders: prompts look as transformers' tokenizer makes them.

    Raises:
        TokenizerError: It has no stop token.
    """
    made = as_tokenizer(tokenizer, stop, bos=bos, model=model)
    if isinstance(made, SourceTokenizer):
        return made
    after = made.special_frame()[1] if isinstance(made, HuggingFaceTokenizer) else ()
    return SourceTokenizer(made, prompt_frame(made)[0], after)


def as_tokenizer(
    tokenizer: Any, stop: Stop | None = None, *, bos: bool = True, model: Any = None
) -> Tokenizer:
    """A tokenizer for environments, from one of any library.

    Args:
        tokenizer: Anything `load_tokenizer` takes. A tokenizer of textenv is used as it is, even
            without a stop token.
        stop: What ends an answer; by default the tokenizer's end of sequence and those of the
            model's `generation_config`.
        bos: False leaves out what the tokenizer puts before a text, such as `<s>`.
        model: The model of transformers that it belongs to.

    Raises:
        TokenizerError: It has no stop token, or is one of textenv and cannot take `bos`.
    """
    if isinstance(tokenizer, Tokenizer) and stop is None:
        if not bos and prompt_frame(tokenizer)[0]:
            raise TokenizerError(
                f"bos=False, but the tokenizer {tokenizer.name!r} was made with what stands before "
                "prompts: make it without, such as HuggingFaceTokenizer(..., bos=False)"
            )
        return tokenizer
    if hasattr(tokenizer, "get_vocab"):
        generation_config = getattr(model, "generation_config", None)
        if stop is None and generation_config is not None:
            stop = ends_of_model(tokenizer, generation_config)
        made: Tokenizer = HuggingFaceTokenizer(tokenizer, stop=stop, bos=bos)
    else:
        made = load_tokenizer(tokenizer)
    if made.stop_token is None:
        raise TokenizerError(
            f"the tokenizer {made.name!r} has no token that ends an answer: answers would only end "
            "with the token budget. Pass stop='<one of its tokens>', such as '</s>' or "
            "'<|im_end|>'; if that is what you want, pass tokenizer=HuggingFaceTokenizer(...)"
        )
    return made
