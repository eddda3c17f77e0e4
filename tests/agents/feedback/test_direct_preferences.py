"""Learning from rankings directly: what a step is, and how many there are."""

import pytest
import torch

from agents.algorithms import DPO
from agents.feedback import Ranking
from agents.feedback.direct import DirectPreferences
from policies import TransformerConfig, TransformerPolicy
from textenv import load_tokenizer
from textenv.errors import PromptError

torch.set_num_threads(1)


def direct():
    policy = TransformerPolicy(
        TransformerConfig(257, 16, n_layer=1, n_head=2, n_embd=8), tokenizer=load_tokenizer("bytes")
    )
    return DirectPreferences(policy, policy.frozen_copy(), DPO(), batch_size=2)


def test_rankings_of_nothing_but_ties_are_no_steps():
    """A bar that counts them would never be full."""
    decided, tied = Ranking("a", ("b", "c"), (1, 2)), Ranking("a", ("b", "c"), (1, 1))
    rankings = [decided, tied, decided, tied, tied, decided]
    learning = direct()
    steps = list(learning.steps(rankings, epochs=2))
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert learning.count(rankings, epochs=2) == len(steps)
    with pytest.raises(PromptError, match="better"):
        learning.count([tied])
