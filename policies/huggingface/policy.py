"""Any causal language model of transformers as a policy."""

from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from policies import adapters, head
from policies.adapter_view import AdapterView, base_view, snapshot_view
from policies.cache import Plan, PrefixCache, Store
from policies.huggingface import prefixes, saving
from policies.huggingface.checkpointing import allow_checkpoints, checkpointed
from policies.huggingface.fitting import (
    Probe,
    check_vocabulary,
    default_context,
    post_processing,
    use_rows,
)
from policies.huggingface.loading import as_tokenizer, load_model, load_models_tokenizer
from policies.huggingface.prefixes import FixedPrefix
from policies.huggingface.rows import ROWS, ContinuedRows, Prefix, RowStore, WholeRows
from policies.huggingface.siblings import Sibling, sibling
from policies.linear import PackedWeight
from policies.policy import Policy
from policies.sharing import SharedRows, share_beginnings, whole_rows
from textenv.errors import AdapterError


class HuggingFacePolicy(Policy):
    """A causal language model of transformers with a value head that starts at zero.

    The model is used as it is, not copied, and set to evaluation for good: log-probabilities are
    compared, so that dropout stays off in training too. Its attention goes through a function of
    textenv's; the model's own `generate` and `forward` work as before.

    Args:
        model: A `transformers.PreTrainedModel` with a language-modelling head, or a
            `peft.PeftModel` around one.
        tokenizer: Its tokenizer, of transformers or textenv.
        context: Longest text; by default what the model's configuration says.
        stop: The token that ends an answer, if it is not the tokenizer's end of sequence.
        seed: Seed of the policy's own random numbers.

    Attributes:
        model: The same; a `PeftModel` once an adapter was added.
        transformers_tokenizer: The tokenizer, if it is of transformers.
        checkpointing: Whether `checkpoint_activations` was called.
        fixed_prefix: Virtual tokens that stand for the adapter's while a reference computes.

    Raises:
        VocabularyMismatchError: The tokenizer knows tokens that the model's head has no logit for.
        TokenizerError: The tokenizer has no stop token.
        UnsupportedModelError: The model does not compute what its own `forward` does when it reads
            several rows at once, as it is with linear attention or ALiBi.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        context: int | None = None,
        stop: str | None = None,
        seed: int = 0,
    ):
        made = as_tokenizer(tokenizer, stop)
        language_model = adapters.base_model(model)
        width = check_vocabulary(language_model, made)
        longest = context or default_context(language_model.config)
        super().__init__(made.vocab_size, longest, width, made, seed)
        self.model = model.eval()
        self.value_head.to(model.device)
        self.transformers_tokenizer = tokenizer if hasattr(tokenizer, "save_pretrained") else None
        self._scale, self._softcap = post_processing(language_model.config)
        self._packed = PackedWeight()
        self.checkpointing = False
        self.fixed_prefix: FixedPrefix | None = None
        self._check_adapter()
        probe = Probe(language_model, self.vocab_size)
        use_rows(language_model)
        probe.compare(self)
        self.context -= prefixes.virtual_tokens(model)

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
        stop: str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """A model by its name on the hub or its folder; see `load_model` and the class.

        Args:
            name_or_folder: Its name on the hub, or the folder it was saved in.
            gguf_file: The file of quantised weights to read; they are expanded to `dtype`.
            dtype: Of the weights; fp32 if None.
            revision: Branch, tag or commit on the hub.
            tokenizer: Another one than the model's own.
            context: Longest text.
            stop: The token that ends an answer.
            seed: Seed of the policy's own random numbers.
            **options: Further arguments of `AutoModelForCausalLM.from_pretrained`.

        Raises:
            MissingExtraError: transformers is not installed.
            ModelUnavailableError: The model is not on this machine and cannot be fetched.
            TokenizerUnavailableError: There is no tokenizer beside it.
        """
        model = load_model(
            name_or_folder, gguf_file=gguf_file, dtype=dtype, revision=revision, **options
        )
        if tokenizer is None:
            tokenizer = load_models_tokenizer(
                name_or_folder, gguf_file=gguf_file, revision=revision
            )
        return cls(model, tokenizer, context=context, stop=stop, seed=seed)

    # ---------------------------------------------------------------- the network

    def hidden_states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_states`."""
        return self._read_rows(tokens, whole_rows(lengths))

    def hidden_before(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_before`; common beginnings, such as a group's prompt, cost once."""
        rows = share_beginnings(tokens, lengths)
        width = rows.index.shape[1]
        hidden = self._read_rows(tokens[:, :width].flatten()[rows.places], rows)
        chosen, positions = mask.nonzero(as_tuple=True)
        return hidden.index_select(0, rows.index[chosen, positions - 1])

    def extend(self, store: Store, plan: Plan) -> Tensor:
        """See `Policy.extend`."""
        assert isinstance(store, RowStore)
        if not store.layers and (prefix := self.prefix()) is not None:
            store.begin_with(prefix)
        tokens, rows, positions, counts = (torch.from_numpy(x).to(self.device) for x in plan)
        positions = positions + store.before
        attention = ContinuedRows(store, rows, positions, counts)
        return self.decode(tokens, positions, attention).index_select(0, attention.last)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Policy.logits`; logits that the head has beyond the vocabulary are left out."""
        layer = adapters.base_model(self.model).get_output_embeddings()
        if type(layer) is nn.Linear:
            weight = layer.weight[: self.vocab_size]
            bias = None if layer.bias is None else layer.bias[: self.vocab_size]
            logits = self._packed.linear(self._scale * hidden.to(weight.dtype), weight, bias)
        else:  # with an adapter
            logits = layer(self._scale * hidden.to(self.dtype))[:, : self.vocab_size]
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return logits

    def token_scores(
        self, hidden: Tensor, tokens: Tensor, temperature: float, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `policies.head.token_scores`."""
        layer = adapters.base_model(self.model).get_output_embeddings()
        if type(layer) is not nn.Linear or layer.bias is not None or self._softcap is not None:
            return super().token_scores(hidden, tokens, temperature, action_masks)
        weight = layer.weight[: self.vocab_size]
        hidden = self._scale * hidden.to(weight.dtype)
        return head.token_scores(hidden, weight, tokens, temperature, action_masks)

    def new_store(self, num_rows: int) -> RowStore:
        """See `Policy.new_store`."""
        return RowStore(num_rows, self.context + prefixes.virtual_tokens(self.model))

    def last_hidden(self, observations: ArrayLike, cache: PrefixCache | None = None) -> Tensor:
        """See `Policy.last_hidden`; another adapter, or none, drops what the cache holds."""
        if cache is not None and isinstance(cache.store, RowStore):
            # The cache watches the parameters it was made with; there may be others now.
            state = adapters.state(self.model), self.fixed_prefix
            if state != cache.store.state:
                cache.clear()
                cache.store.state = state
        return super().last_hidden(observations, cache)

    def prefix(self) -> Prefix | None:
        """Keys and values of the adapter's virtual tokens, with gradient if enabled."""
        if self.fixed_prefix is not None:
            return self.fixed_prefix.prefix
        return prefixes.prefix_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights."""
        dtype: torch.dtype = adapters.base_model(self.model).dtype
        return dtype

    def checkpoint_activations(self) -> None:
        """From here on compute activations again in the backward pass instead of keeping them.

        The model's own `gradient_checkpointing_enable` has no effect, since it asks for a model in
        training. Chen et al., "Training deep nets with sublinear memory cost" (2016).
        """
        allow_checkpoints(adapters.base_model(self.model))
        self.checkpointing = True

    def train(self, mode: bool = True) -> Self:
        """As of any module, but the model itself stays in evaluation: no dropout."""
        super().train(mode)
        self.model.eval()
        return self

    def _read_rows(self, tokens: Tensor, rows: SharedRows) -> Tensor:
        prefix = self.prefix()
        before = 0 if prefix is None else prefix[0][0].shape[1]
        return self.decode(tokens, rows.positions + before, WholeRows(rows, prefix))

    def decode(self, tokens: Tensor, positions: Tensor, rows: Any) -> Tensor:
        """Hidden states (N, n_embd), fp32, of flat tokens."""
        decoder = adapters.base_model(self.model).base_model
        # A mask of four dimensions is handed on as it is, and our attention does not look at it.
        unused = torch.zeros(1, 1, 1, 1, device=tokens.device)
        with checkpointed(decoder, self.checkpointing):
            output = decoder(
                input_ids=tokens[None],
                attention_mask=unused,
                position_ids=positions[None],
                use_cache=False,
                **{ROWS: rows},
            )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden.float()

    # ---------------------------------------------------------------- adapters

    def add_adapter(self, config: Any, name: str = "default") -> None:
        """Freeze the model and train an adapter of `peft` instead, with the value head.

        Args:
            config: Such as `peft.LoraConfig(...)`, `PrefixTuningConfig` or `PromptEncoderConfig`;
                its task type is filled in.
            name: What to call it.

        Raises:
            MissingExtraError: peft is not installed.
            AdapterError: Adapters of this kind cannot be used with the prefix cache.
        """
        prefixes.check_config(config)
        before = prefixes.virtual_tokens(self.model)
        self.model = adapters.wrap(self.model, config, name).eval()
        self.context -= prefixes.virtual_tokens(self.model) - before

    def reference(self) -> AdapterView:
        """The same weights with the adapter off, as a policy; one copy in memory.

        Raises:
            AdapterError: There is no adapter.
        """
        if prefixes.virtual_tokens(self.model):
            return AdapterView(self, FixedPrefix(self, None))
        return base_view(self)

    def sibling(self, config: Any, name: str) -> Sibling:
        """Another policy on the same weights that trains an adapter and a value head of its own.

        The trunk of a reward model, or the critic of a `SeparateValue`; one copy of the model in
        memory. The policy must have an adapter itself, so that the weights they share are frozen.

        Args:
            config: Such as `peft.LoraConfig(...)`; no virtual tokens, no `modules_to_save`.
            name: What to call the adapter.

        Raises:
            AdapterError: The policy has no adapter, or has one of this name; or adapters of this
                kind cannot be switched.
        """
        return sibling(self, config, name)

    def frozen_copy(self) -> Any:
        """The policy as it is now, which takes no gradient: the reference of a KL penalty.

        With an adapter only that is copied, and the model's weights are shared.
        """
        if not hasattr(self.model, "peft_config") or adapters.trains_more(self.model):
            return super().frozen_copy()
        if prefixes.virtual_tokens(self.model):
            with torch.no_grad():
                now = self.prefix()
            return AdapterView(self, FixedPrefix(self, now))
        return snapshot_view(self)

    def merge(self) -> None:
        """Work the adapter into the model's weights, and train all of them from here on.

        Raises:
            AdapterError: There is none, or it consists of virtual tokens.
        """
        if prefixes.virtual_tokens(self.model):
            raise AdapterError(
                "virtual tokens cannot be merged into weights: keep the adapter, or use LoRA"
            )
        self.model = adapters.merged(self.model).requires_grad_(True).eval()

    def _check_adapter(self) -> None:
        for config in getattr(self.model, "peft_config", {}).values():
            prefixes.check_config(config)

    # ---------------------------------------------------------------- on disk

    def save(self, folder: str | Path) -> Path:
        """Write a folder that transformers can load too: model or adapter, tokenizer, value head.

        Of a policy with an adapter, only that is written; the model is noted by its name.
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
            CheckpointError: There is none, or it has another shape.
            VocabularyMismatchError: It was made with another vocabulary.
        """
        saving.load_weights(self, folder, self.value_head)
