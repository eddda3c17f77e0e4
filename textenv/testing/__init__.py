"""Is this an environment that an agent can learn text from? For your own environments.

    from textenv.testing import check_text_env

    check_text_env(MyEnv)

runs every rule and raises an AssertionError that names the first one that is broken. In a test file
each rule becomes a test of its own:

    from textenv.testing import TextEnvContract

    class TestMyEnv(TextEnvContract):
        def make(self, **kwargs):
            return MyEnv(prompts=["a", "b"], **kwargs)

The rules are about environments. They do not look at learners, nor at whether a reward makes sense.
"""

from textenv.testing.checks import (
    ENV_RULES,
    VECTOR_RULES,
    TextEnvContract,
    TextVectorEnvContract,
    check_text_env,
)

__all__ = [
    "ENV_RULES",
    "VECTOR_RULES",
    "TextEnvContract",
    "TextVectorEnvContract",
    "check_text_env",
]
