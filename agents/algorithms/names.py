"""The algorithms by the names that a command line and a configuration file use."""

import difflib

from agents.algorithm import Algorithm
from agents.algorithms.actor_critic import A2C, REINFORCE
from agents.algorithms.groups import DAPO, GRPO, RLOO, DrGRPO, REINFORCEPlusPlus
from agents.algorithms.imitation import BestOfN, RewardWeightedRegression
from agents.algorithms.off_policy import OffPolicyGradient, SoftQLearning
from agents.algorithms.ppo import PPO, PPOPenalty
from agents.algorithms.preferences import DPO, IPO, KTO
from agents.algorithms.pretraining_mix import PPOPtx
from agents.algorithms.ratios import CISPO, GSPO
from agents.algorithms.trees import TreePO
from agents.algorithms.trpo import TRPO
from agents.algorithms.vine import VinePPO
from textenv.errors import OptionError
from textenv.loading import load_object

ALGORITHMS: dict[str, type[Algorithm]] = {
    "a2c": A2C,
    "best-of-n": BestOfN,
    "cispo": CISPO,
    "dapo": DAPO,
    "dpo": DPO,
    "dr-grpo": DrGRPO,
    "grpo": GRPO,
    "gspo": GSPO,
    "ipo": IPO,
    "kto": KTO,
    "off-policy-gradient": OffPolicyGradient,
    "ppo": PPO,
    "ppo-penalty": PPOPenalty,
    "ppo-ptx": PPOPtx,
    "reinforce": REINFORCE,
    "reinforce-plus-plus": REINFORCEPlusPlus,
    "reward-weighted-regression": RewardWeightedRegression,
    "rloo": RLOO,
    "soft-q-learning": SoftQLearning,
    "tree-po": TreePO,
    "trpo": TRPO,
    "vine-ppo": VinePPO,
}


def algorithm_named(name: str) -> type[Algorithm]:
    """The class of that name, or one of the user's: `file.py:Name` or `package.module:Name`.

    Raises:
        OptionError: No algorithm has this name, or it names something other than a dataclass
            derived from `Algorithm`.
        ObjectNotFoundError: The file, the module or the name does not exist.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, ALGORITHMS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise OptionError(
            f"there is no algorithm {name!r}: {hint}There are {', '.join(ALGORITHMS)}; one of your "
            "own is file.py:Name"
        )
    found = load_object(name)
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise OptionError(f"{name} is {found!r}, not a class derived from agents.Algorithm")
    if "__dataclass_fields__" not in vars(found):  # not those of its base class
        raise OptionError(f"{name} has no fields: put @dataclass(frozen=True) above the class")
    return found
