"""A network of our own as options describe it: its form and sizes, and how long texts may be."""

from collections.abc import Callable

from agents.commands.pretrain import PretrainedNetwork
from agents.commands.shared import Network
from policies import Policy, TransformerConfig, TransformerPolicy
from policies.rotary import NTK, Linear, Llama3, Scaling, YaRN
from textenv import Tokenizer
from textenv.errors import OptionError

FORMS: dict[str, Callable[..., TransformerConfig]] = {
    "gpt": TransformerConfig,
    "llama": TransformerConfig.llama,
}


def check_sizes(network: PretrainedNetwork) -> None:
    """Refuse what makes no new network, before anything that takes long.

    Raises:
        OptionError: The sizes do not go together, or there is nothing yet that could be stretched.
    """
    if network.rope_scaling is not None:
        raise OptionError(
            "--rope-scaling stretches the positions of a policy for texts that are longer than "
            "those it has learned from: name it by --policy, or leave --rope-scaling out"
        )
    if network.n_kv_head is not None and network.n_head % network.n_kv_head:
        raise OptionError(
            f"--n-kv-head {network.n_kv_head} does not divide --n-head {network.n_head}: as many "
            "heads share one's keys"
        )
    if network.n_embd % network.n_head:
        raise uneven_heads(network)
    if network.form == "llama" and (network.n_embd // network.n_head) % 2:
        raise OptionError(
            f"a head has --n-embd {network.n_embd} / --n-head {network.n_head} numbers, and rotary "
            "positions turn pairs: it must be an even number"
        )


def new_network(network: PretrainedNetwork, vocabulary: Tokenizer, seed: int) -> TransformerPolicy:
    """A policy with weights drawn from `seed`, of sizes that `check_sizes` has let pass."""
    config = FORMS[network.form](
        vocabulary.vocab_size,
        network.window,
        n_layer=network.n_layer,
        n_head=network.n_head,
        n_embd=network.n_embd,
        n_kv_head=network.n_kv_head,
    )
    return TransformerPolicy(config, tokenizer=vocabulary, seed=seed)


def wide_enough(policy: Policy, network: PretrainedNetwork) -> Policy:
    """`policy`, or a copy with stretched rotary positions if the window is longer than its context.

    Raises:
        OptionError: The window is too long and the policy cannot be stretched, or nothing says how.
    """
    window, kind = network.window, network.rope_scaling
    rotary = isinstance(policy, TransformerPolicy) and policy.config.rope is not None
    if window <= policy.context:
        if kind is None:
            return policy
        raise OptionError(
            f"--rope-scaling {kind} is for windows that are longer than the policy's context of "
            f"{policy.context}, and --window is {window}: leave it out, or take a longer window"
        )
    if kind is None or not isinstance(policy, TransformerPolicy) or not rotary:
        ways = ", or stretch its positions, with --rope-scaling" if rotary else ""
        raise OptionError(
            f"--window {window} is more than the context of the policy in {network.policy}: take "
            f"{policy.context} or less{ways}"
        )
    return policy.lengthened(window, _scaling(kind, window / policy.context, policy.context))


def _scaling(kind: str, factor: float, trained: int) -> Scaling:
    if kind in ("yarn", "llama3"):
        return (YaRN if kind == "yarn" else Llama3)(factor, trained)
    return (Linear if kind == "linear" else NTK)(factor)


def uneven_heads(network: Network) -> OptionError:
    """What to raise where the heads cannot share the width evenly."""
    heads, width = network.n_head, network.n_embd
    below = width // heads * heads
    fitting = f"{below} or {below + heads}" if below else str(heads)
    return OptionError(
        f"--n-head {heads} does not divide --n-embd {width}, which heads share: take --n-embd "
        f"{fitting}, or another --n-head"
    )
