"""What a loss multiplies the log-probability of each token by, from its gradient in the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.testing.batches import LossBatch


def of_tokens(gradient: Tensor, batch: LossBatch) -> tuple[Tensor, float]:
    """The weight of each token's log-probability (S, L), and the share that is no such weight.

    An entropy bonus pulls at all logits of a choice. Its part is fitted beside, so that it does not
    pass for a weight of the chosen token.
    """
    logs = batch.logits.detach().log_softmax(-1)
    probabilities = logs.exp()
    chosen = -probabilities
    chosen.scatter_add_(-1, batch.tokens[..., None], torch.ones_like(chosen[..., :1]))
    entropy = -probabilities * (logs - (probabilities * logs).sum(-1, keepdim=True))
    columns = torch.stack([chosen, entropy], -1)
    weights = -torch.linalg.lstsq(columns, gradient[..., None]).solution[..., 0, 0]
    rest = gradient + weights[..., None] * chosen
    return weights, float(rest.norm() / gradient.norm().clamp(min=1e-30))
