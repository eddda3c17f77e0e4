"""Several policies on one trunk, each with an adapter and a value head of its own.

The reward model and the critic of PPO are as large as the policy. With adapters all three, and the
reference, can share one copy of the weights in memory.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from torch import nn

from policies import adapters
from policies.adapter_checks import check_config
from policies.adapter_view import AdapterView, KeptAdapter
from policies.huggingface import prefixes, saving
from policies.huggingface.base import TransformersPolicy
from textenv.errors import AdapterError


class Sibling(AdapterView):
    """A policy on the weights of another one, with an adapter and a value head of its own.

    Only these are its parameters; no gradient reaches others. A deep copy is one more adapter on
    the same weights.

    Args:
        policy: The policy whose weights it uses.
        name: Name of an adapter of the policy's model that the policy itself does not use.
        parameters: Parameters of that adapter.
    """

    def __init__(self, policy: TransformersPolicy, name: str, parameters: Iterable[nn.Parameter]):
        super().__init__(policy, KeptAdapter(policy.model, name))
        self._owner, self.name = (policy,), name
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.adapter = nn.ParameterList(parameters)
        self.requires_grad_(True)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        (policy,) = self._owner
        if id(policy) in memo:  # it was copied too, with all its adapters
            adapter = [memo[id(parameter)] for parameter in self.adapter]
            together = type(self)(memo[id(policy)], self.name, adapter)
            together.value_head = copy.deepcopy(self.value_head, memo)
            return together
        name = f"{self.name}_copy"
        while name in policy.model.peft_config:
            name += "_2"
        config = policy.model.peft_config[self.name]
        copied = type(self)(policy, name, adapters.add_beside(policy.model, config, name))
        copied.load_state_dict(self.state_dict())
        return copied

    def frozen_copy(self) -> Self:
        """See `Policy.frozen_copy`; the adapter alone is copied."""
        return copy.deepcopy(self).requires_grad_(False).eval()

    def save(self, folder: str | Path) -> Path:
        """As `HuggingFacePolicy.save`: what is written can be loaded as a policy of its own."""
        (policy,) = self._owner
        with self._setting():
            return saving.save(policy, folder, policy.transformers_tokenizer, self.value_head)

    def load_weights(self, folder: str | Path) -> None:
        """Take the adapter and the value head that `save` wrote, here or of another policy."""
        with self._setting():
            saving.load_weights(self._owner[0], folder, self.value_head)


def sibling(policy: TransformersPolicy, config: Any, name: str) -> Sibling:
    """See `HuggingFacePolicy.sibling`."""
    if config.is_prompt_learning or prefixes.virtual_tokens(policy.model):
        raise AdapterError("virtual tokens cannot be switched with other adapters: use LoRA")
    if getattr(config, "modules_to_save", None):
        raise AdapterError(
            f"modules_to_save={config.modules_to_save}: a sibling has an adapter and a value head, "
            "and no other modules of its own"
        )
    check_config(config)
    if adapters.trained_beside(policy.model):
        raise AdapterError(
            "the model's own weights are trained, and a sibling's outputs would move with them: "
            "call policy.add_adapter(config) first, which freezes them"
        )
    return Sibling(policy, name, adapters.add_beside(policy.model, config, name))
