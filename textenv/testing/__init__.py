"""Checks of your own environments and agents, as functions and as tests.

    from textenv.testing import check_text_env

    check_text_env(MyEnv)

runs every rule and raises an AssertionError that names the first broken one. In a test file each
rule becomes a test of its own:

    from textenv.testing import TextEnvContract

    class TestMyEnv(TextEnvContract):
        def make(self, **kwargs):
            return MyEnv(prompts=["a", "b"], **kwargs)

`check_agent(agent, env)` does the same for a learner. It checks whether the log-probabilities are
those of the sampled tokens. If the learner offers its advantages, loss, KL or standardisation, it
checks them too. `check_policy(policy)` checks a network: its cache, its batches and its padding
change nothing, and it comes back from a file. Not covered: whether a reward makes sense, and
whether an agent learns (`textenv.testing.exact` has exact results for that).
"""

from textenv.testing.agent_rules import AGENT_RULES, Agent
from textenv.testing.checks import (
    ENV_RULES,
    VECTOR_RULES,
    TextEnvContract,
    TextVectorEnvContract,
    check_agent,
    check_policy,
    check_text_env,
)
from textenv.testing.learning_rules import LEARNING_RULES, LearningFunctions
from textenv.testing.policy_rules import POLICY_RULES
from textenv.testing.training_rules import TRAINING_RULES, TrainingFunctions

__all__ = [
    "AGENT_RULES",
    "ENV_RULES",
    "LEARNING_RULES",
    "POLICY_RULES",
    "TRAINING_RULES",
    "VECTOR_RULES",
    "Agent",
    "LearningFunctions",
    "TextEnvContract",
    "TextVectorEnvContract",
    "TrainingFunctions",
    "check_agent",
    "check_policy",
    "check_text_env",
]
