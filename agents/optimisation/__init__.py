"""How an optimiser step is taken.

settings          learning rate, clip of the gradient, memory, precision
minibatches       sequences shared out among the steps of an epoch
micro_batches     a minibatch in the memory of a part of it
precision         matrix products in bfloat16 or float16
natural_gradient  TRPO's step
pretraining_term  the text that PPO-ptx goes on reading
"""

from typing import TYPE_CHECKING

from textenv.imports import deferred

if TYPE_CHECKING:
    from agents.optimisation import natural_gradient, pretraining_term
else:
    # Algorithms name them where they are declared, without torch.
    natural_gradient = deferred("agents.optimisation.natural_gradient")
    pretraining_term = deferred("agents.optimisation.pretraining_term")

__all__ = ["natural_gradient", "pretraining_term"]
