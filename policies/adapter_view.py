"""Policies that share another one's weights and differ from it by an adapter."""

import copy
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self

from numpy.typing import ArrayLike
from torch import Tensor, nn

from policies import adapters
from policies.cache import Plan, PrefixCache, Store
from policies.dropout import Dropout
from policies.policy import Policy
from textenv.errors import AdapterError


class Setting(Protocol):
    """A state of the adapters in which a reference computes, such as all of them off."""

    def __call__(self) -> AbstractContextManager[None]:
        """Put the adapters into that state for as long as the context lasts."""
        ...

    def save(self, folder: Path) -> None:
        """Write its tensors into `folder`, if it has any."""
        ...

    def load(self, folder: Path) -> None:
        """Take the tensors that `save` wrote."""
        ...


class AdaptersOff:
    """All adapters of `module` are off; there is nothing to save."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __call__(self) -> AbstractContextManager[None]:
        """See `Setting`."""
        return adapters.switched(self.module, None)

    def save(self, folder: Path) -> None:
        """See `Setting`."""

    def load(self, folder: Path) -> None:
        """See `Setting`."""


class KeptAdapter:
    """The adapter `name` of `model` is active, whichever is active outside."""

    def __init__(self, model: Any, name: str):
        self.model, self.name = model, name

    def __call__(self) -> AbstractContextManager[None]:
        """See `Setting`."""
        return adapters.switched(self.model, self.name)

    def save(self, folder: Path) -> None:
        """See `Setting`."""
        adapters.save_adapter(self.model, folder, self.name)

    def load(self, folder: Path) -> None:
        """See `Setting`."""
        adapters.load_adapter(self.model, folder, self.name)


class AdapterView(Policy):
    """A policy that shares the weights of another one and computes with another adapter, or none.

    It is a reference: it takes no gradient. Only what it does not share is saved.

    Args:
        policy: The policy whose weights it uses.
        setting: The adapters that are active while it computes.
    """

    def __init__(self, policy: Policy, setting: Setting):
        head = copy.deepcopy(policy.value_head).requires_grad_(False)
        super().__init__(policy.vocab_size, policy.context, head.in_features, policy.tokenizer)
        self.value_head = head
        self._shared, self._setting = (
            (policy,),
            setting,
        )  # in a tuple, so that torch does not count its weights as ours

    def hidden_states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_states`."""
        with self._setting():
            return self._shared[0].hidden_states(tokens, lengths)

    def hidden_before(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """See `Policy.hidden_before`."""
        with self._setting():
            return self._shared[0].hidden_before(tokens, mask, lengths)

    def last_hidden(self, observations: ArrayLike, cache: PrefixCache | None = None) -> Tensor:
        """See `Policy.last_hidden`."""
        with self._setting():
            return self._shared[0].last_hidden(observations, cache)

    def extend(self, store: Store, plan: Plan) -> Tensor:
        """See `Policy.extend`."""
        with self._setting():
            return self._shared[0].extend(store, plan)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Policy.logits`."""
        with self._setting():
            return self._shared[0].logits(hidden)

    def token_logprobs(
        self, hidden: Tensor, tokens: Tensor, temperature: float, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `Policy.token_logprobs`."""
        with self._setting():
            return self._shared[0].token_logprobs(hidden, tokens, temperature, action_masks)

    def new_store(self, num_rows: int) -> Store:
        """See `Policy.new_store`."""
        return self._shared[0].new_store(num_rows)

    def new_cache(self, num_rows: int, capacity: int | None = None) -> PrefixCache:
        """See `Policy.new_cache`."""
        return self._shared[0].new_cache(num_rows, capacity)

    def dropping(self, rates: Dropout) -> AbstractContextManager[None]:
        """See `Policy.dropping`."""
        return self._shared[0].dropping(rates)

    def frozen_copy(self) -> Self:
        """Itself: nothing in it changes."""
        return self

    def save(self, folder: str | Path) -> Path:
        """Write what it does not share with its policy, such as a copied adapter."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._setting.save(folder)
        return folder

    def load_weights(self, folder: str | Path) -> None:
        """See `Policy.load_weights`; the policy is loaded on its own."""
        self._setting.load(Path(folder))


def base_view(policy: Policy) -> AdapterView:
    """`policy` with its adapters off, as a policy; one copy of the weights in memory.

    Raises:
        AdapterError: There is no adapter, or other weights are trained too.
    """
    check_base_is_fixed(policy)
    return AdapterView(policy, AdaptersOff(policy))


def check_base_is_fixed(policy: Policy) -> None:
    """Refuse a policy that would not stay the same with its adapters off.

    Raises:
        AdapterError: There is no adapter, or other weights are trained too.
    """
    model = getattr(policy, "model", policy)
    if not hasattr(model, "peft_config"):
        raise AdapterError(
            "the policy has no adapter to switch off: add one first, or use policy.frozen_copy()"
        )
    if names := adapters.trained_beside(model):
        raise AdapterError(
            f"weights beside the adapter are trained too, such as {names[0]}, so that the model "
            "without its adapter does not stay what it is: use policy.frozen_copy(), which copies "
            "them, or freeze them"
        )


def snapshot_view(policy: Policy) -> AdapterView:
    """`policy` as it is now; a copy of its active adapter is kept beside it, and nothing else.

    Raises:
        AdapterError: There is no adapter, or more than one is active.
    """
    model = getattr(policy, "model", policy)
    return AdapterView(policy, KeptAdapter(model, adapters.copy_adapter(model)))
