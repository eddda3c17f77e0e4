"""A policy whose values come from a second network, as in InstructGPT.

The hidden state of a token is that of the actor followed by that of the critic. Logits read the
first part, values the second. So everything that a policy can do works unchanged, the cache
included, and no gradient of a value reaches the actor. It costs the passes of two networks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from policies.cache import Plan, Store
from policies.checkpoint import load_policy
from policies.dropout import Dropout
from policies.policy import Policy
from policies.policy_files import ACTOR, CRITIC
from textenv.errors import VocabularyMismatchError
from textenv.tokenizers import Tokenizer


class SeparateValue(Policy):
    """An actor that chooses tokens and a critic that estimates values.

    Ouyang et al., "Training language models to follow instructions with human feedback" (2022),
    appendix C.4, where the critic starts as the reward model.

    Args:
        actor: Gives the logits and the tokenizer.
        critic: Gives the values; it has the same vocabulary, such as the trunk of a reward model.

    Raises:
        VocabularyMismatchError: Their vocabularies differ.
    """

    def __init__(self, actor: Policy, critic: Policy):
        prints = [p.tokenizer.fingerprint for p in (actor, critic) if p.tokenizer is not None]
        if actor.vocab_size != critic.vocab_size or len(set(prints)) > 1:
            raise VocabularyMismatchError(
                f"the actor has {actor.vocab_size} tokens and the critic {critic.vocab_size}, or "
                "their vocabularies differ: a critic reads the actor's tokens, so use the actor's "
                "own value head instead"
            )
        widths = [p.value_head.in_features for p in (actor, critic)]
        context = min(actor.context, critic.context)
        super().__init__(actor.vocab_size, context, sum(widths), actor.tokenizer)
        self.generator = actor.generator
        self.actor, self.critic, self._width = actor, critic, widths[0]
        self.value_head = _CriticsHead(critic, widths[0])

    def hidden_states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_states`."""
        return torch.cat([p.hidden_states(tokens, lengths) for p in self._both()], dim=-1)

    def hidden_before(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_before`."""
        return torch.cat([p.hidden_before(tokens, mask, lengths) for p in self._both()], dim=-1)

    def extend(self, store: Store, plan: Plan) -> Tensor:
        """See `Policy.extend`."""
        assert isinstance(store, _TwoStores)
        pairs = zip(self._both(), store.stores, strict=True)
        return torch.cat([policy.extend(its, plan) for policy, its in pairs], dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Policy.logits`."""
        return self.actor.logits(hidden[:, : self._width])

    def token_logprobs(
        self, hidden: Tensor, tokens: Tensor, temperature: float, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `Policy.token_logprobs`."""
        actors = hidden[:, : self._width]
        if not any(parameter.requires_grad for parameter in self.actor.parameters()):
            actors = actors.detach()  # it would seem to depend on the critic, its neighbour
        return self.actor.token_logprobs(actors, tokens, temperature, action_masks)

    def new_store(self, num_rows: int) -> Store:
        """See `Policy.new_store`."""
        return _TwoStores([policy.new_store(num_rows) for policy in self._both()])

    @contextmanager
    def dropping(self, rates: Dropout) -> Iterator[None]:
        """See `Policy.dropping`."""
        with self.actor.dropping(rates), self.critic.dropping(rates):
            yield

    def save(self, folder: str | Path) -> Path:
        """Write actor and critic into folders of their own.

        `load` reads both, `load_policy` the actor.
        """
        folder = Path(folder)
        self.actor.save(folder / ACTOR)
        self.critic.save(folder / CRITIC)
        return folder

    @classmethod
    def load(cls, folder: str | Path, tokenizer: Tokenizer | None = None) -> Self:
        """Read both networks that `save` wrote; see `load_policy`.

        Args:
            folder: Where it was saved.
            tokenizer: The vocabulary it is to be used with, if it must be that one.

        Raises:
            CheckpointError: Files are missing, damaged, or of another format.
            VocabularyMismatchError: It was made with another vocabulary.
        """
        folder = Path(folder)
        return cls(*(load_policy(folder / part, tokenizer) for part in (ACTOR, CRITIC)))

    def load_weights(self, folder: str | Path) -> None:
        """See `Policy.load_weights`."""
        self.actor.load_weights(Path(folder) / ACTOR)
        self.critic.load_weights(Path(folder) / CRITIC)

    @property
    def encoded_tokens(self) -> int:
        """Tokens that either network has read."""
        return self.actor.encoded_tokens + self.critic.encoded_tokens

    @encoded_tokens.setter
    def encoded_tokens(self, count: int) -> None:
        """Nothing to set: the networks count."""

    def _both(self) -> tuple[Policy, Policy]:
        return self.actor, self.critic


class _CriticsHead(nn.Linear):
    """The critic's value head on its part of the hidden state; the same parameters."""

    def __init__(self, critic: Policy, begin: int):
        nn.Module.__init__(self)
        head = critic.value_head
        self.in_features, self.out_features = begin + head.in_features, 1
        self.weight, self.bias, self._begin = head.weight, head.bias, begin

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states (N, both widths) to values (N, 1)."""
        return nn.functional.linear(hidden[:, self._begin :], self.weight, self.bias)


class _TwoStores:
    """The stores of actor and critic, which hold the same rows."""

    def __init__(self, stores: list[Store]):
        self.stores = stores

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """See `Store`."""
        for store in self.stores:
            store.copy_prefix(source, target, length)

    def clear(self) -> None:
        """See `Store`."""
        for store in self.stores:
            store.clear()
