"""Log-probabilities and entropies of chosen tokens from hidden states, in slices.

With a vocabulary of 50,000 the logits of one batch would be the largest array in memory by far.
Here they exist slice by slice. Only the probabilities are kept for the backward pass, (N, V) once,
and they are turned into the gradient of the logits in place.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from policies import kernels

SLICE_ENTRIES = 2**23
"""This many logits are computed at a time: enough rows for a fast product, little memory."""

EXCLUDED = -1e9
"""Logit of a masked token: its probability is exactly 0, and 0 times it is 0 rather than NaN."""


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    action_masks: Tensor | None = None,
    unused: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy of the distribution it was chosen from.

        z = hidden @ weight.T / temperature (masked),   p = softmax(z)
        logprob = log p[token],                         entropy = -sum p log p

    Args:
        hidden: Hidden states before the choices, shape (N, n_embd).
        weight: The output head, shape (V, n_embd).
        tokens: Chosen tokens, shape (N,), int64.
        temperature: Divides the logits.
        action_masks: Which tokens could be chosen, shape (N, V), bool.
        unused: Ids that stand for no token and can never be chosen, shape (U,), int64.

    Returns:
        Two tensors of shape (N,), float32, differentiable (once) in `hidden` and `weight`.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
        weight = weight.to(hidden.dtype)
    keep = torch.is_grad_enabled()  # within the function it never is
    return _TokenLogprobs.apply(hidden, weight, tokens, temperature, action_masks, unused, keep)


def logprobs_of_logits(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of choices from logits that exist already.

    The plain form, for heads that are not one matrix.

    Args:
        logits: Shape (N, V), float32; minus infinity where a token could not be chosen.
        tokens: Chosen tokens, shape (N,), int64.

    Returns:
        Two tensors of shape (N,), differentiable.
    """
    log_all = logits.log_softmax(-1)
    # 0 log 0 = 0 where an action is masked.
    finite = log_all.masked_fill(log_all == -torch.inf, 0.0)
    return log_all.gather(1, tokens[:, None]).squeeze(1), -(log_all.exp() * finite).sum(-1)


def _fill_logprobs(z: Tensor, tokens: Tensor, logprobs: Tensor, entropies: Tensor) -> None:
    """Logits (n, V) to probabilities in place; fills log-probabilities and entropies, both (n,).

    The plain form of `kernels.fill_logprobs`.
    """
    z.sub_(z.amax(1, keepdim=True))
    chosen, p = z.gather(1, tokens[:, None]).squeeze(1), z.exp()
    total = p.sum(1)
    log_total = total.log()
    torch.sub(chosen, log_total, out=logprobs)
    torch.sub(log_total, torch.einsum("nv,nv->n", p, z) / total, out=entropies)
    torch.div(p, total[:, None], out=z)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        temperature: float,
        action_masks: Tensor | None,
        unused: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        n, vocab_size = len(hidden), len(weight)
        # A reference, or a pass under no_grad, keeps nothing of size (N, V).
        keep = keep and any(ctx.needs_input_grad)
        slices = _slices(n, vocab_size)
        # In bfloat16 if the gradient will be; float16 lacks the range for probabilities.
        dtype = torch.bfloat16 if hidden.dtype == torch.bfloat16 else torch.float32
        # With float32 each slice is computed where it will be kept; otherwise in a scratch array.
        kept = hidden.new_empty(n if keep else 0, vocab_size, dtype=dtype)
        in_place = keep and dtype == torch.float32
        longest = max((part.stop - part.start for part in slices), default=0)
        scratch = hidden.new_empty(0 if in_place else longest, vocab_size, dtype=torch.float32)
        logprobs, entropies = (hidden.new_empty(n, dtype=torch.float32) for _ in range(2))
        for part in slices:
            z = kept[part] if in_place else scratch[: part.stop - part.start]
            # The product in the weights' precision, all that follows in float32.
            if hidden.dtype == torch.float32:
                torch.mm(hidden[part], weight.T, out=z)
            else:
                z.copy_(hidden[part] @ weight.T)
            if temperature != 1.0:
                z.div_(temperature)
            if action_masks is not None:
                z.masked_fill_(~action_masks[part], EXCLUDED)
            if unused is not None:
                z.index_fill_(1, unused, EXCLUDED)
            fill = kernels.fill_logprobs if kernels.kernels_fit(z) else _fill_logprobs
            fill(z, tokens[part], logprobs[part], entropies[part])
            if keep and not in_place:
                kept[part] = z
        if keep:
            ctx.save_for_backward(hidden, weight, tokens, logprobs, entropies, kept)
            ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_logprobs: Tensor | None, g_entropies: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        # d logprob / dz = onehot(token) - p;   d entropy / dz = -p (log p + entropy)
        # `dz` comes in as the probabilities and is overwritten: there is no second backward pass.
        hidden, weight, tokens, logprobs, entropies, dz = ctx.saved_tensors
        if g_entropies is not None and not g_entropies.any():  # an entropy bonus of weight 0
            g_entropies = None
        for part in _slices(*dz.shape):
            p = dz[part].float()
            if g_entropies is not None:
                g = g_entropies[part, None]
                curve = torch.xlogy(p, p).add_(p * entropies[part, None]).mul_(g)
            if g_logprobs is None:
                p.zero_()
            else:
                g = g_logprobs[part, None]
                p.mul_(-g)
                # 1 - p from the log-probability: when p is rounded near 1, the difference is lost.
                p.scatter_(1, tokens[part, None], -torch.expm1(logprobs[part, None]) * g)
            if g_entropies is not None:
                p.sub_(curve)
            if ctx.temperature != 1.0:
                p.div_(ctx.temperature)
            if dz.dtype != torch.float32:
                dz[part] = p
        # z = hidden @ weight.T, so both gradients are one product each.
        dz = dz.to(hidden.dtype)
        d_hidden = dz @ weight if ctx.needs_input_grad[0] else None
        d_weight = dz.T @ hidden if ctx.needs_input_grad[1] else None
        return d_hidden, d_weight, None, None, None, None, None


def _slices(n: int, vocab_size: int) -> list[slice]:
    size = max(1, SLICE_ENTRIES // vocab_size)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
