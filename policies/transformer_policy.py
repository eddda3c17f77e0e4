"""A transformer of our own as a policy."""

import dataclasses
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from policies import adapters
from policies.cache import Plan, Store
from policies.head import token_logprobs
from policies.linear import PackedWeight
from policies.policy import Policy
from policies.policy_files import (
    actors_folder,
    generator_of,
    read_policy,
    read_tokenizer,
    unreadable,
)
from policies.rows import ContinuedRows, RowStore
from policies.sharing import share_beginnings, whole_rows
from policies.transformer import Transformer, TransformerConfig
from policies.whole_rows import WholeRows
from textenv.errors import CheckpointError
from textenv.tokenizers import Tokenizer


class TransformerPolicy(Policy):
    """A GPT-2 style decoder with a value head that starts at zero.

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
    def for_env(cls, env: Any, *, seed: int = 0, **shape: int) -> Self:
        """A policy that fits the spaces of `env`, a single or a vector environment.

        Args:
            env: Its observations are padded token ids (a one-dimensional Box), its actions
                tokens (Discrete).
            seed: Seed of the initial weights and of the policy's random numbers.
            **shape: `n_layer`, `n_head`, `n_embd` of `TransformerConfig`; `context` if it is to be
                longer than an observation.

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
        config = TransformerConfig(vocab_size=int(actions.n), **shape)
        return cls(config, tokenizer=getattr(env.unwrapped, "tokenizer", None), seed=seed)

    def hidden_states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_states`."""
        rows = whole_rows(lengths)
        return self.transformer(tokens, rows.positions, WholeRows(rows))

    def hidden_before(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_before`; common beginnings, such as a group's prompt, cost once."""
        rows = share_beginnings(tokens, lengths)
        width = rows.index.shape[1]
        flat = tokens[:, :width].flatten()[rows.places]
        chosen, positions = mask.nonzero(as_tuple=True)
        # Rows that share a beginning may choose from the same place.
        wanted, place = rows.index[chosen, positions - 1].unique(return_inverse=True)
        hidden = self.transformer(flat, rows.positions, WholeRows(rows), wanted)
        return hidden.index_select(0, place)

    def extend(self, store: Store, plan: Plan) -> Tensor:
        """See `Policy.extend`."""
        assert isinstance(store, RowStore)
        new = ContinuedRows(store, plan, self.device)
        return self.transformer(new.tokens, new.positions, new, new.last)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Policy.logits`; the head is the token embedding."""
        return self._head.linear(hidden, self.transformer.token_embedding.weight, None)

    def token_logprobs(
        self, hidden: Tensor, tokens: Tensor, temperature: float, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `policies.head.token_logprobs`."""
        weight = self.transformer.token_embedding.weight
        return token_logprobs(hidden, weight, tokens, temperature, action_masks, self.unused_tokens)

    def description(self) -> dict[str, Any]:
        """See `Policy.description`."""
        shape = {"kind": "transformer", "config": dataclasses.asdict(self.config)}
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
            config = TransformerConfig(**description["config"])
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
