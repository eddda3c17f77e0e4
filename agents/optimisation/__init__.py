"""How an optimiser step is taken.

bounds            of numbers in settings: where they stand and where they are checked
settings          learning rate, clip of the gradient, memory, precision
minibatches       divides the sequences among the steps of an epoch
micro_batches     sends a minibatch through the network in parts, to save memory
precision         matrix products in bfloat16 or float16
natural_gradient  TRPO's step
pretraining_term  PPO-ptx's loss on the pretraining text
distilling        GKD's divergences from a teacher
smaller_sampler   rollouts by a smaller copy of the policy
"""

from typing import TYPE_CHECKING

from textenv.imports import deferred

if TYPE_CHECKING:
    from agents.optimisation import distilling, natural_gradient, pretraining_term
else:
    # Algorithms import these, and must import without torch.
    distilling = deferred("agents.optimisation.distilling")
    natural_gradient = deferred("agents.optimisation.natural_gradient")
    pretraining_term = deferred("agents.optimisation.pretraining_term")

__all__ = ["distilling", "natural_gradient", "pretraining_term"]
