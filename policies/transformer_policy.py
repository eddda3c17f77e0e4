"""A transformer of our own as a policy."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from policies import adapters
from policies.cache import Plan, Store
from policies.dropout import Dropout
from policies.head import token_logprobs
from policies.huggingface.checks import check_vocabulary
from policies.linear import PackedWeight
from policies.llama import config_of_llama, weights_of_llama
from policies.policy import Policy
from policies.policy_files import (
    actors_folder,
    generator_of,
    read_policy,
    read_tokenizer,
    unreadable,
)
from policies.rotary import Scaling
from policies.rows import ContinuedRows, RowStore
from policies.sharing import SharedRows, share_beginnings, whole_rows
from policies.transformer import Transformer, TransformerConfig
from policies.whole_rows import WholeRows
from textenv.errors import CheckpointError
from textenv.tokenizers import Tokenizer


class TransformerPolicy(Policy):
    """A decoder in the form of GPT-2 or Llama with a value head that starts at zero.

    Args:
        config: Shape of the network.
        tokenizer: The vocabulary it speaks, kept with it.
        seed: Seed of the initial weights and of the policy's random numbers.

    Attributes:
        chat_template: The texts around the messages of the dialogues that it has learned from, by
            name, kept with it; None if it has learned from none.
    """

    def __init__(
        self, config: TransformerConfig, *, tokenizer: Tokenizer | None = None, seed: int = 0
    ):
        super().__init__(config.vocab_size, config.context, config.n_embd, tokenizer, seed)
        self.config = config
        self.transformer = Transformer(config, seed)
        self._head = PackedWeight()
        self.chat_template: dict[str, str] | None = None

    @classmethod
    def for_env(
        cls,
        env: Any,
        *,
        seed: int = 0,
        form: Callable[..., TransformerConfig] = TransformerConfig,
        **shape: Any,
    ) -> Self:
        """A policy that fits the spaces of `env`, a single or a vector environment.

        Args:
            env: Its observations are padded token ids (a one-dimensional Box), its actions
                tokens (Discrete).
            seed: Seed of the initial weights and of the policy's random numbers.
            form: `TransformerConfig` for GPT-2's form, `TransformerConfig.llama` for Llama's.
            **shape: `n_layer`, `n_head`, `n_embd` and the like of `TransformerConfig`; `context` if
                it is to be longer than an observation.

        Raises:
            ValueError: Its observations have not one dimension.
        """
        actions = getattr(env, "single_action_space", env.action_space)
        observations = getattr(env, "single_observation_space", env.observation_space)
        if observations.shape is None or len(observations.shape) != 1:
            raise ValueError(
                f"observations of shape {observations.shape} are not texts of shape (L,): an "
                "observation already holds the whole text so far, so remove what stacks or "
                "reshapes observations, such as FrameStackObservation"
            )
        shape.setdefault("context", observations.shape[0])
        config = form(vocab_size=int(actions.n), **shape)
        return cls(config, tokenizer=getattr(env.unwrapped, "tokenizer", None), seed=seed)

    @classmethod
    def from_llama(
        cls,
        model: Any,
        tokenizer: Tokenizer | None = None,
        *,
        context: int | None = None,
        seed: int = 0,
    ) -> Self:
        """A policy with the weights of a `transformers.LlamaForCausalLM`, which are copied.

        It computes what the model does, in a decoding step of compiled loops, and is saved, copied
        and adapted as any network of ours.

        Args:
            model: The model, such as that of `policies.huggingface.loading.load_model`.
            tokenizer: Its vocabulary, such as the `tokenizer` of a `HuggingFacePolicy`; tokens
                of the model behind it are left out.
            context: Longest text; by default what the model's configuration says. Rotary positions
                of the kind `dynamic` are those of a text of this length.
            seed: Seed of the policy's random numbers.

        Raises:
            UnsupportedModelError: It is of another family, or computes what our network does not.
            VocabularyMismatchError: The tokenizer has more tokens than the model.
        """
        if tokenizer is not None:
            check_vocabulary(model, tokenizer)
        known = model.config.vocab_size if tokenizer is None else tokenizer.vocab_size
        policy = cls(config_of_llama(model, context, known), tokenizer=tokenizer, seed=seed)
        weights = weights_of_llama(model, known)
        with torch.no_grad():
            for name, parameter in policy.transformer.named_parameters():
                if name in weights:  # the others are biases that the model lacks, zeros
                    parameter.data = weights[name].detach().clone()
        return policy.to(model.device)

    def lengthened(self, context: int, scaling: Scaling | None = None) -> Self:
        """A copy that reads texts of up to `context` tokens, by rotary positions.

        Args:
            context: Longest text.
            scaling: How its rotary positions are stretched, such as
                `policies.rotary.YaRN(factor, trained)`; as they were if None.

        Raises:
            ValueError: It has no rotary positions.
            ModelError: `scaling` cannot stretch heads of this size.
        """
        if self.config.rope is None:
            raise ValueError(
                "this network embeds its positions, of which it has learned as many as its context "
                f"of {self.context}: only rotary positions (TransformerConfig.llama, or rope=...) "
                "can be stretched"
            )
        rope = self.config.rope
        if scaling is not None:
            rope = dataclasses.replace(rope, scaling=scaling)
        longer = copy.deepcopy(self)
        longer.transformer.set_rope(rope, context)
        longer.config, longer.context = longer.transformer.config, context
        return longer

    def hidden_states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_states`."""
        rows = whole_rows(lengths)
        self.encoded_tokens += len(tokens)
        return self.transformer(tokens, rows.positions, self._whole(rows))

    def hidden_before(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_before`; common beginnings, such as a group's prompt, cost once."""
        rows = share_beginnings(tokens, lengths)
        width = rows.index.shape[1]
        flat = tokens[:, :width].flatten()[rows.places]
        chosen, positions = mask.nonzero(as_tuple=True)
        # Rows that share a beginning may choose from the same place.
        wanted, place = rows.index[chosen, positions - 1].unique(return_inverse=True)
        self.encoded_tokens += len(flat)
        hidden = self.transformer(flat, rows.positions, self._whole(rows), wanted)
        return hidden.index_select(0, place)

    @contextmanager
    def dropping(self, rates: Dropout) -> Iterator[None]:
        """See `Policy.dropping`."""
        before = self.transformer.dropout
        self.transformer.drop(rates)
        try:
            yield
        finally:
            self.transformer.drop(before)

    def _whole(self, rows: SharedRows) -> WholeRows:
        return WholeRows(rows, dropout=self.transformer.dropout.attention)

    def extend(self, store: Store, plan: Plan) -> Tensor:
        """See `Policy.extend`."""
        assert isinstance(store, RowStore)
        self.encoded_tokens += len(plan.tokens)
        new = ContinuedRows(store, plan, self.device)
        return self.transformer(new.tokens, new.positions, new, new.last)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Policy.logits`."""
        return self._head.linear(hidden, self.transformer.head_weight, None)

    def token_logprobs(
        self, hidden: Tensor, tokens: Tensor, temperature: float, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `policies.head.token_logprobs`."""
        weight = self.transformer.head_weight
        return token_logprobs(hidden, weight, tokens, temperature, action_masks, self.unused_tokens)

    def description(self) -> dict[str, Any]:
        """See `Policy.description`."""
        shape = {"kind": "transformer", "config": self.config.as_json()}
        chat = {} if self.chat_template is None else {"chat_template": self.chat_template}
        return shape | chat | adapters.descriptions(self)

    @classmethod
    def load(cls, folder: str | Path, tokenizer: Tokenizer | None = None) -> Self:
        """Read what `save` wrote; of a policy with a critic of its own, the actor.

        Args:
            folder: Where it was saved.
            tokenizer: The vocabulary it is to be used with, if it must be that one.

        Raises:
            CheckpointError: Files are missing, damaged, or of another format.
            VocabularyMismatchError: The checkpoint was made with another vocabulary.
        """
        folder = actors_folder(folder)
        description, weights = read_policy(folder)
        try:
            config = TransformerConfig.from_json(description["config"])
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(folder, error) from error
        found = read_tokenizer(folder, description, config.vocab_size, tokenizer)
        policy = cls(config, tokenizer=found)
        policy.generator = generator_of(description) or policy.generator
        adapters.add_described(policy, description)
        policy.chat_template = description.get("chat_template")
        try:
            for name, parameter in policy.named_parameters():  # in the number type they had
                parameter.data = parameter.data.to(weights[name].dtype)
            policy.load_state_dict(weights)
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"the weights in {folder} do not fit its description") from error
        return policy

    def load_weights(self, folder: str | Path) -> None:
        """See `Policy.load_weights`.

        Raises:
            CheckpointError: There are no weights, or they have another shape.
            VocabularyMismatchError: It was made with another vocabulary.
        """
        saved = self.load(folder, self.tokenizer)
        if saved.config != self.config:
            raise CheckpointError(f"{folder} holds a policy of {saved.config}, not {self.config}")
        self.load_state_dict(saved.state_dict())

    def new_store(self, num_rows: int) -> RowStore:
        """See `Policy.new_store`."""
        return RowStore(num_rows, self.context)
