"""Is this an environment that an agent can learn text from? For your own environments.

    from textenv.testing import check_text_env

    check_text_env(MyEnv)

runs every rule and raises an AssertionError that names the first one that is broken. In a test file
each rule becomes a test of its own:

    from textenv.testing import TextEnvContract

    class TestMyEnv(TextEnvContract):
        def make(self, **kwargs):
            return MyEnv(prompts=["a", "b"], **kwargs)

`check_agent(agent, env)` does the same for a learner: whether its log-probabilities are those of
what it samples, and, if it offers them, whether its advantages, loss, KL and standardisation are
right. `check_policy(policy)` does it for a network: whether its cache, its batches and its padding
change nothing, and whether it comes back from a file. Not covered: whether a reward makes sense,
and whether an agent learns (`textenv.testing.exact` has exact answers for that).
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

__all__ = [
    "AGENT_RULES",
    "ENV_RULES",
    "LEARNING_RULES",
    "POLICY_RULES",
    "VECTOR_RULES",
    "Agent",
    "LearningFunctions",
    "TextEnvContract",
    "TextVectorEnvContract",
    "check_agent",
    "check_policy",
    "check_text_env",
]
