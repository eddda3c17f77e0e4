"""Choosing tokens from logits with one uniform number a row."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from policies import kernels

BLOCK = 128
"""Probabilities are summed over blocks of this size, so that only one block is accumulated."""


Sampler = Callable[[Tensor, NDArray[np.float64]], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Tokens and their log-probabilities from logits (n, V) and uniform numbers (n,): `sample`,
`sample_gumbel`."""

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WRAP = 1 << 64


def mask_tensor(action_masks: ArrayLike | Tensor) -> Tensor:
    """Action masks of rows (n, V), or one for all of them (V,), as a tensor of bool.

    Rows that share one mask in memory, as those of an environment do, are read once.
    """
    if isinstance(action_masks, Tensor):
        return action_masks
    masks = np.asarray(action_masks)
    if masks.ndim == 2 and len(masks) and masks.strides[0] == 0:
        masks = masks[0]
    return torch.from_numpy(masks if masks.flags.writeable else masks.copy())


def mask_logits(logits: Tensor, action_masks: Tensor | None) -> Tensor:
    """Logits with minus infinity where `action_masks` is False; both (..., V)."""
    return logits if action_masks is None else logits.masked_fill(~action_masks, -torch.inf)


def forbid(logits: Tensor, action_masks: Tensor) -> Tensor:
    """As `mask_logits`, in place if `logits` is an inference tensor, which nobody learns from.

    With 50,000 tokens a copy takes longer than sampling.
    """
    in_place = logits.is_inference() and logits.is_contiguous()
    if in_place and kernels.kernels_fit(logits) and action_masks.is_contiguous():
        kernels.forbid(logits, action_masks)
        return logits
    return mask_logits(logits, action_masks)


def unpacked(table: Tensor, size: int) -> Tensor:
    """Masks from their bits, most significant first, as `numpy.packbits` makes them.

    Args:
        table: Shape (n, ceil(size / 8)), uint8.
        size: Tokens of the vocabulary.

    Returns:
        Shape (n, size), bool, on the same device.
    """
    if table.device.type == "cpu":
        bits = np.unpackbits(table.numpy(), axis=1, count=size)
        return torch.from_numpy(bits).view(torch.bool)
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=table.device)
    return (table[:, :, None] & places).ne(0).flatten(1)[:, :size]


def sample(
    logits: Tensor, uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A token of every row, and its log-probability, by `sample_inverse_cdf`.

    Args:
        logits: Shape (n, V), float; minus infinity rules a token out.
        uniforms: Numbers in [0, 1), shape (n,).

    Returns:
        Tokens and log-probabilities, both (n,); NaN where there is nothing to choose from.
    """
    if kernels.kernels_fit(logits):
        tokens, logprobs = kernels.sample(logits, uniforms)
        return tokens, logprobs.astype(np.float32)
    probabilities = logits.softmax(-1)
    chosen = sample_inverse_cdf(probabilities, torch.from_numpy(uniforms))
    chosen.clamp_(max=logits.shape[1] - 1)  # with NaN any token may come out
    of_chosen = probabilities.gather(1, chosen[:, None]).squeeze(1).log()
    return chosen.cpu().numpy(), of_chosen.cpu().numpy()


def sample_gumbel(
    logits: Tensor, uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A token of every row, and its log-probability, by the Gumbel-max trick.

        token = argmax over v of logits_v + G_v,   G_v = -log(-log(1 - w_v))

    w_v is the v-th number of the stream of SplitMix64 that starts at the bits of the row's uniform
    number; the noise is made where it is needed and kept nowhere. With equal numbers two policies
    choose the same token far more often than by `sample`: it changes only where another token's
    sum passes the largest. Use it where policies are compared, and `sample`, which is quicker, in
    rollouts. A token of probability zero is never chosen.

    Maddison, Tarlow and Minka, "A* Sampling", 2014. Computed as the exponential clock that rings
    first, at -log(1 - w_v) / exp(logits_v), which has the same order.

    Args:
        logits: Shape (n, V), float; minus infinity rules a token out.
        uniforms: Numbers in [0, 1), shape (n,), float64; only their bits are used.

    Returns:
        Tokens and log-probabilities, both (n,); NaN where there is nothing to choose from.
    """
    keys = np.ascontiguousarray(uniforms, dtype=np.float64).view(np.uint64)
    if kernels.kernels_fit(logits):
        tokens, logprobs = kernels.sample_gumbel(logits, keys)
        return tokens, logprobs.astype(np.float32)
    less = logits - logits.amax(-1, keepdim=True)
    weights, w = less.exp(), _noise(keys, logits.shape[1], logits.device)
    # Infinitely late at weight 0; a row of NaN has any token.
    chosen = (-torch.log1p(-w) / weights).argmin(-1, keepdim=True)
    of_chosen = less.gather(1, chosen).double() - weights.double().sum(-1, keepdim=True).log()
    return chosen.squeeze(1).cpu().numpy(), of_chosen.squeeze(1).float().cpu().numpy()


def _noise(keys: NDArray[np.uint64], vocab_size: int, device: torch.device) -> Tensor:
    """Numbers in (0, 1), shape (n, V), float64: those of `policies.compiled.gumbel`."""
    tokens = torch.arange(1, vocab_size + 1, device=device)
    # Integers of 64 bits wrap around alike with and without a sign.
    z = torch.from_numpy(keys.view(np.int64)).to(device)[:, None] + tokens * (_GOLDEN - _WRAP)
    z = (z ^ _shifted(z, 30)) * (_FIRST - _WRAP)
    z = (z ^ _shifted(z, 27)) * (_SECOND - _WRAP)
    return (_shifted(z ^ _shifted(z, 31), 11).double() + 0.5) * 2.0**-53


def _shifted(z: Tensor, bits: int) -> Tensor:
    """`z`, int64, shifted to the right as if it had no sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def sample_inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """The token at which the cumulative distribution passes a uniform number.

    `multinomial` draws an exponential for every entry of the vocabulary; this needs one number a
    row. A token of probability zero is never chosen.

    Args:
        probabilities: Non-negative weights, shape (n, V), float; they need not sum to 1.
        uniforms: Numbers in [0, 1), shape (n,), float64.

    Returns:
        Tokens, shape (n,), int64.
    """
    vocab_size = probabilities.shape[1]
    whole = vocab_size // BLOCK * BLOCK
    sums = probabilities[:, :whole].unflatten(1, (whole // BLOCK, BLOCK)).sum(-1)
    if whole < vocab_size:
        sums = torch.cat([sums, probabilities[:, whole:].sum(-1, keepdim=True)], dim=1)
    # Cumulated in float64: the target would round past small probabilities otherwise.
    bounds = sums.to(uniforms.dtype).cumsum(-1)
    target = (uniforms.to(bounds.device) * bounds[:, -1]).unsqueeze(1)
    # The first block whose upper bound is above the target: it has a positive sum.
    block = torch.searchsorted(bounds, target, right=True).clamp_(max=bounds.shape[1] - 1)
    below = bounds.gather(1, block) - sums.gather(1, block)
    places = block * BLOCK + torch.arange(BLOCK, device=block.device)
    inside = torch.where(
        places < vocab_size, probabilities.gather(1, places.clamp(max=vocab_size - 1)), 0.0
    )
    steps = inside.to(bounds.dtype).cumsum(-1)
    # A block's sum and its running sum may round differently: stay below the last positive entry.
    remaining = torch.minimum(target - below, steps[:, -1:] * (1.0 - 2.0**-40))
    offset = torch.searchsorted(steps, remaining.clamp_(min=0.0), right=True)
    return (block * BLOCK + offset).squeeze(1)


def keep_top(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Logits with minus infinity outside the likeliest tokens.

    Args:
        logits: Shape (n, V).
        top_k: Keep this many tokens (Fan et al., 2018).
        top_p: Keep the smallest set whose probability reaches this (Holtzman et al., 2020).

    Returns:
        Shape (n, V). Probabilities under it are not those of the model: for plain generation only.
    """
    if top_k is not None:
        kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p is not None:
        ordered, order = logits.sort(dim=-1, descending=True)
        weights = ordered.softmax(-1)
        before = weights.cumsum(-1) - weights  # the likeliest token always stays
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits
