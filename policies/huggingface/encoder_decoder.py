"""Encoder-decoders of transformers (T5, BART, ...) as policies.

A policy is a function of the observation, so an observation must say where the source ends: at its
first separator, the token that these models' tokenizers put behind a source. The encoder reads all
up to it, the separator included, in both directions. The decoder reads its start token in the
separator's place, and then the answer:

    observation   We  won  </s>   Wir  haben  </s>
    encoder       We  won  </s>
    decoder                <pad>  Wir  haben
    chosen                 Wir    haben  </s>

So the token at a place is chosen from the hidden state of the place before it, as in any policy.
Everything behind the first separator is answer, also a second separator.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from policies import adapters
from policies.cache import Plan, PrefixCache, Store
from policies.dropout import Dropout
from policies.huggingface.base import TransformersPolicy
from policies.huggingface.checks import refuse_causal_models, unsupported
from policies.huggingface.dropping import dropping_in, dropping_weights
from policies.huggingface.loading import as_source_tokenizer
from policies.huggingface.probes import SourceProbe
from policies.huggingface.recomputation import checkpointed
from policies.huggingface.registered_attention import replace_attention
from policies.huggingface.sources import SourceStore, ends_of_sources, ids_of, padded
from policies.observations import token_ids
from textenv.errors import AdapterError, SourceError, UnsupportedModelError
from textenv.tokenizers.huggingface import Stop


class EncoderDecoderPolicy(TransformersPolicy):
    """An encoder-decoder of transformers; see `TransformersPolicy`.

    Make environments with `tokenizer=policy.tokenizer`, whose prompts end with the separator.
    Nothing is forced: a `forced_bos_token_id` of the model's generation settings is ignored.

    Args:
        model: A `transformers.PreTrainedModel` with an encoder, a decoder and a language-modelling
            head, or a `peft.PeftModel` around one.
        tokenizer: Its tokenizer, of transformers or textenv. A `SourceTokenizer` says what prompts
            look like; with others that is what transformers' tokenizer does.
        context: Longest source and answer together; by default the longest source of the model.
        stop: The token that ends an answer, or several, of which fine-tuning writes the first; by
            default the tokenizer's end of sequence and all of the model's `generation_config`.
        bos: False leaves out what the tokenizer puts before a text, such as `<s>`.
        seed: Seed of the policy's own random numbers.

    Attributes:
        separator: The token that ends a source.
        start_token: What the decoder reads in its place.

    Raises:
        VocabularyMismatchError: The tokenizer knows tokens that the model's head has no logit for.
        TokenizerError: The tokenizer has no stop token, or nothing that ends a prompt.
        UnsupportedModelError: The model does not compute what its own `forward` does when rows
            stand at different places, has no start token, or is not an encoder-decoder.
    """

    kind, auto_class, task_type = "encoder-decoder", "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"
    check_architecture = staticmethod(refuse_causal_models)

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
        made = as_source_tokenizer(tokenizer, stop, bos=bos, model=language_model)
        super().__init__(model, made, tokenizer, context, seed)
        self.separator, self.start_token = made.separator, _start_token(language_model)
        with self._off()():
            probe = self.probe(language_model)
            self.register_attention()
            replace_attention(language_model, _stepping().ANSWERS)
            if (why := probe.difference(self)) is not None:
                raise unsupported(language_model, why)
        self.check_adapters()

    def probe(self, model: Any) -> SourceProbe:
        """See `TransformersPolicy.probe`."""
        return SourceProbe(model, self.vocab_size, self.separator, self.start_token)

    @staticmethod
    def register_attention() -> None:
        """See `TransformersPolicy.register_attention`."""
        _stepping().register_attention()

    @staticmethod
    def check_adapter(config: Any) -> None:
        """See `TransformersPolicy.check_adapter`."""
        if config.is_prompt_learning or getattr(config, "is_adaption_prompt", False):
            raise AdapterError(
                f"adapters of type {config.peft_type} are not supported for encoder-decoders: use "
                "LoRA"
            )

    @property
    def decoder(self) -> Any:
        """See `TransformersPolicy.decoder`."""
        return adapters.base_model(self.model).get_decoder()

    @contextmanager
    def dropping(self, rates: Dropout) -> Iterator[None]:
        """See `Policy.dropping`; encoder and decoder drop, the model itself stays in evaluation.

        Raises:
            UnsupportedModelError: The model's layers have other parts than attention and MLP.
        """
        model = adapters.base_model(self.model)
        with ExitStack() as contexts:
            for stack in (model.get_encoder(), model.get_decoder()):
                contexts.enter_context(dropping_in(stack, rates))
                contexts.enter_context(dropping_weights(stack, rates.attention))
            yield

    # ---------------------------------------------------------------- step by step

    def last_hidden(self, observations: ArrayLike, cache: PrefixCache | None = None) -> Tensor:
        """See `Policy.last_hidden`.

        Raises:
            SourceError: A row has no separator.
        """
        ids = token_ids(observations, self.pad_token)
        separated = (ids == self.separator).any(1)
        if not separated.all():
            raise self._no_separator(int(separated.argmin()))
        return super().last_hidden(ids, cache)

    def new_store(self, num_rows: int) -> SourceStore:
        """See `Policy.new_store`."""
        return SourceStore(num_rows, self.context)

    def extend(self, store: Store, plan: Plan) -> Tensor:
        """See `Policy.extend`.

        If the source of a row is not complete yet, its tokens are kept and it has no hidden state.
        That happens in a plan for a beginning that several rows share.
        """
        assert isinstance(store, SourceStore)
        store.write(plan)
        last = np.cumsum(plan.counts) - 1
        rows, lengths = plan.rows[last], plan.positions[last] + 1
        ends = ends_of_sources(store.tokens[rows], lengths, self.separator)
        # Only rows whose plan reaches into the source may have a new source.
        touched = ends >= lengths - plan.counts
        self._read_sources(store, rows[touched], ends[touched] + 1)
        # The decoder reads what stands from the separator on; its positions count from there.
        offsets = np.repeat(ends, plan.counts)
        answered = (offsets >= 0) & (plan.positions >= offsets)
        if not answered.any():
            return self.value_head.weight.new_empty(0, self.value_head.in_features)
        positions = (plan.positions - offsets)[answered]
        ids = np.where(positions == 0, self.start_token, plan.tokens[answered])
        _, counts = np.unique(plan.rows[answered], return_counts=True)
        arrays = ids, plan.rows[answered], positions, counts
        tokens, *places = (torch.from_numpy(x).to(self.device) for x in arrays)
        self.encoded_tokens += len(tokens)
        new = _stepping().NewTokens(*places)
        past = _stepping().Past(store, new)
        own_mask, source_mask = past.masks(self.dtype)
        output = self.decoder(
            input_ids=tokens[None],
            attention_mask=own_mask,
            # Layers only ask whether there is an encoder; its keys and values are in the cache.
            encoder_hidden_states=own_mask.new_zeros(1, 1, 1),
            encoder_attention_mask=source_mask,
            past_key_values=past,
            use_cache=True,
            **{_stepping().ANSWERS: new},
        )
        return output.last_hidden_state[0, new.last].float()

    def _read_sources(self, store: SourceStore, rows: Any, lengths: Any) -> None:
        """Give rows (k,) the keys of their sources; new sources are encoded in one pass."""
        if missing := store.adopt(rows, lengths):
            ids, inside = padded([ids_of(source) for source in missing])
            memory, inside = self._encode(ids.to(self.device), inside.to(self.device))
            keys = _stepping().source_keys(self.decoder, self.start_token, memory, inside)
            store.fill(missing, keys)

    # ---------------------------------------------------------------- whole rows

    def hidden_states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_states`; NaN in a source, where no token can be chosen.

        Raises:
            SourceError: A row has no separator.
        """
        inside = torch.arange(int(lengths.max()), device=tokens.device) < lengths[:, None]
        rows = tokens.new_full(inside.shape, self.pad_token).masked_scatter(inside, tokens)
        hidden, ends = self._read_rows(rows, lengths)
        row, place = inside.nonzero(as_tuple=True)
        answer = place - ends[row]
        nowhere = hidden.new_full((), torch.nan)
        return torch.where((answer >= 0)[:, None], hidden[row, answer.clamp(min=0)], nowhere)

    def hidden_before(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_before`; a source that several rows have is encoded once.

        Raises:
            SourceError: A row has no separator before the first token that was chosen.
        """
        numbers = mask.any(1).nonzero().squeeze(1)
        if not len(numbers):
            return self.value_head.weight.new_zeros(0, self.value_head.in_features)
        hidden, ends = self._read_rows(tokens[numbers], lengths[numbers], numbers)
        row, place = mask[numbers].nonzero(as_tuple=True)
        answer = place - 1 - ends[row]
        if (answer < 0).any():
            wrong = int(answer.argmin())
            raise SourceError(
                f"row {int(numbers[row[wrong]])} has a chosen token at place {int(place[wrong])}, "
                f"inside its source, which ends at place {int(ends[row[wrong]])}: an "
                "encoder-decoder gives no probability to sources, only to answers"
            )
        return hidden[row, answer]

    def _read_rows(
        self, tokens: Tensor, lengths: Tensor, numbers: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The decoder's hidden states (S, W, n_embd), fp32, and where sources end (S,).

        Args:
            tokens: Rows, shape (S, L), int64.
            lengths: How many of their tokens are read, shape (S,), int64.
            numbers: Numbers of the rows for error messages.
        """
        arrays = tokens.cpu().numpy(), lengths.cpu().numpy()
        ends = ends_of_sources(*arrays, self.separator)
        if (ends < 0).any():
            row = int(ends.argmin())
            raise self._no_separator(row if numbers is None else int(numbers[row]))
        # Equal sources, such as those of a group, are encoded once.
        sources: dict[bytes, int] = {}
        each = [
            sources.setdefault(row[: end + 1].tobytes(), len(sources))
            for row, end in zip(arrays[0], ends, strict=True)
        ]
        ids, inside = (x.to(self.device) for x in padded([ids_of(s) for s in sources]))
        answers, _ = padded([r[e:n] for r, e, n in zip(arrays[0], ends, arrays[1], strict=True)])
        answers[:, 0] = self.start_token
        self.encoded_tokens += int((arrays[1] - ends).sum())
        with checkpointed(adapters.base_model(self.model), self.checkpointing):
            memory, inside = self._encode(ids, inside)
            chosen = torch.tensor(each, device=self.device)
            output = self.decoder(
                input_ids=answers.to(self.device),  # ids past the end of an answer are never read
                encoder_hidden_states=memory.index_select(0, chosen),
                encoder_attention_mask=inside[chosen],
                use_cache=False,
            )
        return output.last_hidden_state.float(), torch.from_numpy(ends).to(self.device)

    def _encode(self, ids: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        self.encoded_tokens += int(inside.sum())
        encoder = adapters.base_model(self.model).get_encoder()
        return encoder(input_ids=ids, attention_mask=inside).last_hidden_state, inside

    def _no_separator(self, row: int) -> SourceError:
        assert self.tokenizer is not None
        token = self.tokenizer.decode([self.separator])
        return SourceError(
            f"row {row} has no separator (token {self.separator}, {token!r}) that ends its source: "
            "make the environment with tokenizer=policy.tokenizer, which puts it behind prompts, "
            "or end prompts that are given as ids with it"
        )


def _stepping() -> ModuleType:
    """The module that takes steps. It imports transformers, which is optional and takes seconds."""
    from policies.huggingface import stepping

    return stepping


def _start_token(model: Any) -> int:
    for config in (model.config, model.generation_config):
        start = getattr(config, "decoder_start_token_id", None)
        if isinstance(start, int):
            return start
    raise UnsupportedModelError(
        f"{type(model).__name__} does not say what its decoder begins with: set "
        "model.config.decoder_start_token_id"
    )
