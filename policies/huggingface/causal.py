"""Any causal language model of transformers as a policy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from policies import adapters
from policies.adapter_view import AdapterView, Setting
from policies.cache import Plan, Store
from policies.dropout import Dropout
from policies.huggingface import prefixes
from policies.huggingface.base import TransformersPolicy
from policies.huggingface.checks import refuse_encoder_decoders, unsupported
from policies.huggingface.dropping import dropping_in
from policies.huggingface.loading import as_tokenizer
from policies.huggingface.own_attention import replace_own_attention
from policies.huggingface.prefixes import FixedPrefix
from policies.huggingface.probes import CausalProbe
from policies.huggingface.recomputation import checkpointed
from policies.huggingface.registered_attention import (
    ROWS,
    reading,
    register_attention,
    replace_attention,
)
from policies.huggingface.siblings import Sibling, sibling
from policies.rows import ContinuedRows, Prefix, RowStore
from policies.sharing import SharedRows, share_beginnings, whole_rows
from policies.whole_rows import WholeRows
from textenv.errors import AdapterError
from textenv.tokenizers.huggingface import Stop


class HuggingFacePolicy(TransformersPolicy):
    """A causal language model of transformers; see `TransformersPolicy`.

    Args:
        model: A `transformers.PreTrainedModel` with a language-modelling head, or a
            `peft.PeftModel` around one.
        tokenizer: Its tokenizer, of transformers or textenv.
        context: Longest text; by default what the model's configuration says.
        stop: The token that ends an answer, or several, of which fine-tuning writes the first; by
            default the tokenizer's end of sequence and all of the model's `generation_config`.
        bos: False leaves out what the tokenizer puts before a text, such as `<s>`.
        seed: Seed of the policy's own random numbers.

    Attributes:
        fixed_prefix: Virtual tokens that replace the adapter's while a reference computes.

    Raises:
        VocabularyMismatchError: The tokenizer knows tokens that the model's head has no logit for.
        TokenizerError: The tokenizer has no stop token.
        UnsupportedModelError: Reading several rows at once, the model does not compute what its own
            `forward` does, as with linear attention or ALiBi; or it is an encoder-decoder.
    """

    kind, auto_class, task_type = "huggingface", "AutoModelForCausalLM", "CAUSAL_LM"
    check_architecture = staticmethod(refuse_encoder_decoders)
    check_adapter = staticmethod(prefixes.check_config)
    register_attention = staticmethod(register_attention)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        context: int | None = None,
        stop: Stop | None = None,
        bos: bool = True,
        seed: int = 0,
    ):
        language_model = adapters.base_model(model)
        made = as_tokenizer(tokenizer, stop, bos=bos, model=language_model)
        super().__init__(model, made, tokenizer, context, seed)
        self.fixed_prefix: FixedPrefix | None = None
        self._dropout = Dropout()
        with self._off()():
            probe = self.probe(language_model)
            if not replace_own_attention(language_model):
                register_attention()
                replace_attention(language_model, ROWS)
            if (why := probe.difference_and_reason(self, self.decode)) is not None:
                raise unsupported(language_model, why)
        self.context -= prefixes.virtual_tokens(model)
        self.check_adapters()

    def probe(self, model: Any) -> CausalProbe:
        """See `TransformersPolicy.probe`."""
        return CausalProbe(model, self.vocab_size)

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
        new = ContinuedRows(store, plan, self.device)
        hidden = self.decode(new.tokens, new.positions, new)
        return hidden if new.last is None else hidden.index_select(0, new.last)

    def new_store(self, num_rows: int) -> RowStore:
        """See `Policy.new_store`."""
        return RowStore(num_rows, self.context + prefixes.virtual_tokens(self.model))

    def state(self) -> object:
        """See `TransformersPolicy.state`."""
        return super().state(), self.fixed_prefix

    def prefix(self) -> Prefix | None:
        """Keys and values of the adapter's virtual tokens, with gradient if enabled."""
        if self.fixed_prefix is not None:
            return self.fixed_prefix.prefix
        return prefixes.prefix_of(self.model)

    @property
    def decoder(self) -> Any:
        """See `TransformersPolicy.decoder`."""
        return adapters.base_model(self.model).base_model

    def _read_rows(self, tokens: Tensor, rows: SharedRows) -> Tensor:
        prefix = self.prefix()
        before = 0 if prefix is None else prefix[0][0].shape[1]
        return self.decode(
            tokens, rows.positions + before, WholeRows(rows, prefix, self._dropout.attention)
        )

    def decode(self, tokens: Tensor, positions: Tensor, rows: Any) -> Tensor:
        """Hidden states (N, n_embd), fp32, of flat tokens."""
        self.encoded_tokens += len(tokens)
        # transformers hands on a mask of four dimensions unchanged; our attention ignores it.
        unused = torch.zeros(1, 1, 1, 1, device=tokens.device)
        with checkpointed(self.decoder, self.checkpointing), reading(rows):
            output = self.decoder(
                input_ids=tokens[None],
                attention_mask=unused,
                position_ids=positions[None],
                use_cache=False,
            )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden.float()

    @contextmanager
    def dropping(self, rates: Dropout) -> Iterator[None]:
        """See `Policy.dropping`; the model itself stays in evaluation.

        Raises:
            UnsupportedModelError: The model's layers have other parts than attention and MLP.
        """
        before, self._dropout = self._dropout, rates
        try:
            with dropping_in(self.decoder, rates):
                yield
        finally:
            self._dropout = before

    # ---------------------------------------------------------------- adapters

    def add_adapter(self, config: Any, name: str = "default") -> None:
        """See `TransformersPolicy.add_adapter`; the adapter may consist of virtual tokens.

        Args:
            config: Such as `peft.LoraConfig(...)`, `PrefixTuningConfig` or `PromptEncoderConfig`;
                its task type is filled in.
            name: Name of the adapter.

        Raises:
            MissingExtraError: peft is not installed.
            AdapterError: Adapters of this type cannot be used with the prefix cache.
        """
        before = prefixes.virtual_tokens(self.model)
        super().add_adapter(config, name)
        self.context -= prefixes.virtual_tokens(self.model) - before

    def _off(self) -> Setting:
        return FixedPrefix(self, None) if prefixes.virtual_tokens(self.model) else super()._off()

    def sibling(self, config: Any, name: str) -> Sibling:
        """Another policy on the same weights that trains an adapter and a value head of its own.

        Use it as the trunk of a reward model or as the critic of a `SeparateValue`, with one copy
        of the model in memory. The policy must have an adapter itself, so that the shared weights
        are frozen.

        Args:
            config: Such as `peft.LoraConfig(...)`; no virtual tokens, no `modules_to_save`.
            name: Name of the adapter.

        Raises:
            AdapterError: The policy has no adapter, or has one of this name; or adapters of its
                type cannot be switched.
        """
        return sibling(self, config, name)

    def frozen_copy(self) -> Any:
        """See `TransformersPolicy.frozen_copy`."""
        if not prefixes.virtual_tokens(self.model) or adapters.trained_beside(self.model):
            return super().frozen_copy()
        with torch.no_grad():
            now = self.prefix()
        return AdapterView(self, FixedPrefix(self, now))

    def merge(self) -> None:
        """See `TransformersPolicy.merge`.

        Raises:
            AdapterError: There is no adapter, or it consists of virtual tokens.
        """
        if prefixes.virtual_tokens(self.model):
            raise AdapterError(
                "virtual tokens cannot be merged into weights: keep the adapter, or use LoRA"
            )
        super().merge()
