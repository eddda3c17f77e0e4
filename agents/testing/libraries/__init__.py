"""Losses of libraries as functions that `check_loss` takes; each library's own code is called.

None of them builds a trainer. A trainer's method is called with an object that has the settings
which it reads, and with the batch's own tensors.
"""

from agents.testing.libraries.answers import Answers, answers_of, dpo_formula, of_law, pairs_of
from agents.testing.libraries.checkouts import module_of_checkout
from agents.testing.libraries.ours import of_algorithm
from agents.testing.libraries.sb3 import sb3_ppo
from agents.testing.libraries.trl import TRL_GRPO_ADVANTAGES, trl_dpo, trl_grpo, trl_rloo

__all__ = [
    "TRL_GRPO_ADVANTAGES",
    "Answers",
    "answers_of",
    "dpo_formula",
    "module_of_checkout",
    "of_algorithm",
    "of_law",
    "pairs_of",
    "sb3_ppo",
    "trl_dpo",
    "trl_grpo",
    "trl_rloo",
]
