"""Common base of policies around models of transformers, causal ones and encoder-decoders."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from policies import adapters, head
from policies.adapter_checks import check_config, shaken
from policies.adapter_view import (
    AdaptersOff,
    AdapterView,
    Setting,
    check_base_is_fixed,
    snapshot_view,
)
from policies.cache import PrefixCache
from policies.huggingface import saving
from policies.huggingface.checks import check_vocabulary, default_context, post_processing
from policies.huggingface.loading import load_model, load_models_tokenizer
from policies.huggingface.probes import Probe
from policies.huggingface.recomputation import allow_checkpoints
from policies.linear import PackedWeight, pack_layers
from policies.policy import Policy
from textenv.errors import AdapterError, UnsupportedModelError
from textenv.tokenizers import Tokenizer
from textenv.tokenizers.huggingface import Stop


class TransformersPolicy(Policy, ABC):
    """A language model of transformers with a value head that starts at zero.

    The model is used as it is, not copied. It stays in evaluation: log-probabilities are compared,
    so dropout is off in training too. Its attention calls a function of this library; the model's
    own `generate` and `forward` work as before.

    Args:
        model: A `transformers.PreTrainedModel` with a language-modelling head, or a
            `peft.PeftModel` around one.
        tokenizer: The tokenizer of environments.
        own_tokenizer: The same tokenizer as it was given; saved beside the model.
        context: Longest observation; taken from the model's configuration if None.
        seed: Seed of the policy's own random numbers.

    Attributes:
        model: The model; a `PeftModel` once an adapter was added.
        transformers_tokenizer: The tokenizer, if it belongs to transformers; otherwise None.
        checkpointing: Whether `checkpoint_activations` was called.
        chat_template: The texts around the messages of the dialogues that it has learned from, by
            the names of `textenv.frames.ChatTemplate`; None if it has from none, or in the template
            that it was published with.
        loaded_with: Arguments of `from_pretrained` that say which weights were read; an adapter is
            saved with them.
    """

    kind: ClassVar[str]
    """Name of this kind of policy in `policy.json`."""
    auto_class: ClassVar[str]
    """The class of transformers that reads such models."""
    task_type: ClassVar[str]
    """Name of their task in peft."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, own_tokenizer: Any, context: int | None, seed: int
    ):
        language_model = adapters.base_model(model)
        self.check_architecture(language_model)
        width = check_vocabulary(language_model, tokenizer)
        longest = context or default_context(language_model.config)
        super().__init__(tokenizer.vocab_size, longest, width, tokenizer, seed)
        self.model = model.eval()
        self.value_head.to(model.device)
        # Saved only in transformers' own form, since transformers reads it again.
        savable = hasattr(own_tokenizer, "save_pretrained")
        self.transformers_tokenizer = own_tokenizer if savable else None
        self._scale, self._softcap = post_processing(language_model.config)
        self._packed = PackedWeight()
        self.checkpointing = False
        self.chat_template: dict[str, str] | None = None
        self.loaded_with: dict[str, Any] = {}
        for config in getattr(model, "peft_config", {}).values():
            check_config(config)
            self.check_adapter(config)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        gguf_file: str | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        tokenizer: Any = None,
        context: int | None = None,
        stop: Stop | None = None,
        bos: bool = True,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """A model by its name on the hub or its folder; see `load_model` and the class.

        Args:
            name_or_folder: Its name on the hub, or the folder it was saved in.
            gguf_file: The file of quantised weights to read; they are expanded to `dtype`.
            dtype: Number type of the weights; fp32 if None.
            revision: Branch, tag or commit on the hub.
            tokenizer: Used instead of the model's own.
            context: Longest observation.
            stop: What ends an answer; see the class.
            bos: Whether prompts begin as the tokenizer begins texts, such as with `<s>`.
            seed: Seed of the policy's own random numbers.
            **options: Further arguments of transformers' `from_pretrained`.

        Raises:
            MissingExtraError: transformers is not installed.
            ModelUnavailableError: The model is not on this machine and cannot be fetched.
            TokenizerUnavailableError: There is no tokenizer beside it.
            UnsupportedModelError: The model has another architecture.
        """
        model = load_model(
            name_or_folder,
            cls.auto_class,
            gguf_file=gguf_file,
            dtype=dtype,
            revision=revision,
            **options,
        )
        if tokenizer is None:
            tokenizer = load_models_tokenizer(
                name_or_folder, gguf_file=gguf_file, revision=revision
            )
        settings: dict[str, Any] = {"context": context, "stop": stop, "bos": bos, "seed": seed}
        policy = cls(model, tokenizer, **settings)
        given = {"gguf_file": gguf_file, "revision": revision, **options}
        policy.loaded_with = {name: value for name, value in given.items() if value is not None}
        return policy

    # ---------------------------------------------------------------- what a kind provides

    @staticmethod
    @abstractmethod
    def check_architecture(model: Any) -> None:
        """Refuse models that need another class.

        Raises:
            UnsupportedModelError: The model needs another class.
        """

    @staticmethod
    @abstractmethod
    def register_attention() -> None:
        """Make its attention function known to transformers."""

    @staticmethod
    @abstractmethod
    def check_adapter(config: Any) -> None:
        """Refuse adapters with which the prefix cache would not be exact.

        Raises:
            AdapterError: `config` is such an adapter.
        """

    @property
    @abstractmethod
    def decoder(self) -> Any:
        """The layers whose last hidden state goes into the head, without the head."""

    @abstractmethod
    def probe(self, model: Any) -> Probe:
        """Short texts, and what `model` says of them by its own `forward`."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, perhaps in a process that has made no such policy yet."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.register_attention()

    # ---------------------------------------------------------------- the head

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Policy.logits`; logits of the head beyond the vocabulary are left out."""
        layer = adapters.base_model(self.model).get_output_embeddings()
        if type(layer) is nn.Linear:
            weight = layer.weight[: self.vocab_size]
            bias = None if layer.bias is None else layer.bias[: self.vocab_size]
            logits = self._packed.linear(self._scale * hidden.to(weight.dtype), weight, bias)
        else:  # with an adapter
            logits = layer(self._scale * hidden.to(self.dtype))[:, : self.vocab_size]
        if (added := self._logits_bias()) is not None:
            logits = logits + added
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return logits

    def token_logprobs(
        self, hidden: Tensor, tokens: Tensor, temperature: float, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `policies.head.token_logprobs`."""
        layer = adapters.base_model(self.model).get_output_embeddings()
        biased = self._softcap is not None or self._logits_bias() is not None
        if type(layer) is not nn.Linear or layer.bias is not None or biased:
            return super().token_logprobs(hidden, tokens, temperature, action_masks)
        weight = layer.weight[: self.vocab_size]
        hidden = self._scale * hidden.to(weight.dtype)
        return head.token_logprobs(
            hidden, weight, tokens, temperature, action_masks, self.unused_tokens
        )

    def _logits_bias(self) -> Tensor | None:
        """The bias that some families (BART, Marian) add to logits: a buffer, mostly zeros."""
        bias = getattr(adapters.base_model(self.model), "final_logits_bias", None)
        return None if bias is None or not bias.any() else bias[0, : self.vocab_size]

    # ---------------------------------------------------------------- state

    def last_hidden(self, observations: ArrayLike, cache: PrefixCache | None = None) -> Tensor:
        """See `Policy.last_hidden`; the cache is dropped when other adapters are active."""
        if cache is not None and hasattr(cache.store, "state"):
            # The cache watches the parameters it was made with; there may be others now.
            state = self.state()
            if state != cache.store.state:
                cache.forget()
                cache.store.state = state
        return super().last_hidden(observations, cache)

    def state(self) -> object:
        """The adapters in use: besides the weights, all that hidden states depend on."""
        return adapters.state(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the model's weights."""
        dtype: torch.dtype = adapters.base_model(self.model).dtype
        return dtype

    def checkpoint_activations(self) -> None:
        """From now on compute activations again in the backward pass instead of keeping them.

        The model's own `gradient_checkpointing_enable` has no effect, since it asks for a model in
        training. Chen et al., "Training deep nets with sublinear memory cost" (2016).
        """
        allow_checkpoints(adapters.base_model(self.model))
        self.checkpointing = True

    def pack_weights(self) -> None:
        """From now on keep the decoder's weights in a packed form too, for quicker generation.

        Only on processors where that pays (see `policies.linear`). The packed form takes as much
        memory as the weights.
        """
        pack_layers(self.decoder)

    def train(self, mode: bool = True) -> Self:
        """Like `train` of any module, but the model itself stays in evaluation: no dropout."""
        super().train(mode)
        self.model.eval()
        return self

    # ---------------------------------------------------------------- adapters

    def add_adapter(self, config: Any, name: str = "default") -> None:
        """Freeze the model and train an adapter of `peft` instead, with the value head.

        Args:
            config: Such as `peft.LoraConfig(...)`; its task type is filled in.
            name: Name of the adapter.

        Raises:
            MissingExtraError: peft is not installed.
            AdapterError: Adapters of this type cannot be used with the prefix cache, or do not
                leave the model as it is. The policy has then no adapter.
        """
        check_config(config)
        self.check_adapter(config)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        with self._off()():
            plain = self.probe(adapters.base_model(self.model))
        self.model = adapters.wrap(self.model, config, name, self.task_type).eval()
        try:
            if getattr(self.model.peft_config[name], "target_modules_to_tie", None):
                raise AdapterError(
                    "ensure_weight_tying=True makes two adapters of one that can be neither saved "
                    "nor copied: leave it out, or let the adapter change one of the tied tables"
                )
            # A new adapter changes nothing. Moved as if it were trained, it shows what it does.
            with shaken(self.model):
                self.check_adapters()
                with self._off()():
                    if (why := plain.difference(self)) is not None:
                        raise AdapterError(f"without this adapter the model is another one: {why}")
        except AdapterError:
            self.model = adapters.removed(self.model, name)
            for parameter in trained:
                parameter.requires_grad_(True)
            raise

    def check_adapters(self) -> None:
        """Compare the policy with what peft makes of the adapters that are active.

        Raises:
            AdapterError: They differ, since an adapter does more than change layers.
        """
        if not hasattr(self.model, "peft_config"):
            return
        try:
            why = self.probe(self.model).difference(self)
        except UnsupportedModelError as error:  # peft's forward asks for further arguments
            why = str(error)
        if why is not None:
            raise AdapterError(
                f"this adapter cannot be used here, where each token is read once: {why}. "
                "LoRA works"
            )

    def _off(self) -> Setting:
        """In this setting the model computes as without adapters."""
        return AdaptersOff(self.model)

    def reference(self) -> AdapterView:
        """The same weights with the adapter off, as a policy; one copy in memory.

        Raises:
            AdapterError: There is no adapter, or the model's own weights are trained too.
        """
        check_base_is_fixed(self)
        return AdapterView(self, self._off())

    def frozen_copy(self) -> Any:
        """The policy as it is now, without gradient: the reference of a KL penalty.

        With an adapter, only the adapter is copied, and the model's weights are shared.

        Raises:
            AdapterError: More than one adapter is active, or peft cannot keep a second one beside
                this one.
        """
        if not hasattr(self.model, "peft_config") or adapters.trained_beside(self.model):
            return super().frozen_copy()
        return snapshot_view(self)

    def merge(self) -> None:
        """Add the adapter to the model's weights, and train all of them from now on.

        Raises:
            AdapterError: There is no adapter that can be merged.
        """
        self.model = adapters.merged(self.model).requires_grad_(True).eval()

    # ---------------------------------------------------------------- on disk

    def save(self, folder: str | Path) -> Path:
        """Write a folder that transformers can load too: model or adapter, tokenizer, value head.

        With an adapter, only the adapter is written, and the model is noted by its name, the
        arguments it was loaded with and a sum of its bits. Not kept: adapters beside the active
        one, which weights are trained, the device and packed weights.
        """
        return saving.save(self, folder, self.transformers_tokenizer, self.value_head)

    @classmethod
    def load(cls, folder: str | Path, *, model: Any = None, tokenizer: Any = None) -> Self:
        """Read what `save` wrote.

        Args:
            folder: Where it was saved.
            model: The model that an adapter belongs to, if it has no name to load it by.
            tokenizer: The vocabulary, if it was saved without one.

        Raises:
            CheckpointError: Files are missing or damaged, or there is an adapter and no model.
            VocabularyMismatchError: It was made with another vocabulary.
        """
        return saving.load(cls, folder, model, tokenizer)

    def load_weights(self, folder: str | Path) -> None:
        """See `Policy.load_weights`.

        Raises:
            CheckpointError: There are no weights, or they have another shape.
            VocabularyMismatchError: It was made with another vocabulary.
        """
        saving.load_weights(self, folder, self.value_head)
