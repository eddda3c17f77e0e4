"""Running the rules: all of them at once, or each as a test."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from unittest import SkipTest

from gymnasium.vector import VectorEnv

from textenv.testing import env_rules, rules, step_rules, vector_rules
from textenv.testing.agent_rules import AGENT_RULES, Agent, trial
from textenv.testing.learning_rules import LEARNING_RULES
from textenv.testing.making import AnyEnv, Maker
from textenv.testing.policy_rules import POLICY_RULES
from textenv.testing.policy_trial import PolicyTrial
from textenv.testing.training_rules import TRAINING_RULES

Rule: TypeAlias = Callable[[Maker], None]

# The order matters: one broken rule can make later rules fail.
_SPACES = (rules.actions_are_tokens, rules.observations_are_token_ids)
_STEPS = (
    step_rules.observations_are_right_padded,
    step_rules.steps_append_the_chosen_token,
    step_rules.no_two_calls_share_an_observation,
    step_rules.the_first_step_does_not_truncate,
    step_rules.one_flag_ends_an_episode,
    step_rules.finish_reason_tells_the_end,
    step_rules.the_budget_counts_chosen_tokens,
    step_rules.text_is_the_answer,
    step_rules.values_are_finite,
    rules.equal_seeds_repeat_episodes,
    rules.seeds_choose_the_prompts,
    rules.action_masks_are_consistent,
    rules.render_modes_work,
    rules.no_compute_reward,
    rules.the_spec_goes_through_json,
)

ENV_RULES: tuple[Rule, ...] = (
    *_SPACES,
    step_rules.random_actions_never_raise,
    env_rules.steps_return_python_types,
    *_STEPS,
    env_rules.reset_seeds_np_random,
    env_rules.gymnasium_agrees,
    env_rules.stable_baselines3_agrees,
    rules.closing_twice_is_fine,
)
"""The rules for a single environment; each docstring states its rule in a sentence."""

VECTOR_RULES: tuple[Rule, ...] = (
    *_SPACES,
    vector_rules.spaces_are_batched,
    vector_rules.the_autoreset_mode_is_declared,
    vector_rules.steps_return_arrays,
    step_rules.random_actions_never_raise,
    vector_rules.ends_are_kept,
    *_STEPS,
    vector_rules.rows_equal_environments_of_their_own,
    rules.closing_twice_is_fine,
)
"""The rules for a vector environment."""


def check_text_env(env: AnyEnv | Callable[..., AnyEnv]) -> dict[str, str]:
    """Check an environment, single or vector, wrapped or not, against every rule.

    It plays at random only, so it may miss what happens after a particular text. The environment
    must have the spaces of `TextVectorEnv`; images, dictionaries and stacked frames are refused.

    Args:
        env: A class or function that makes the environment, such as
            `functools.partial(gym.make, "MyEnv-v0")`. It is called without arguments, and with
            `render_mode`, `autoreset_mode` or `num_envs` if it takes them. Or the environment
            itself: it can be checked in its own mode only, and is closed at the end.

    Returns:
        The rules that could not be checked, with the reason.

    Raises:
        AssertionError: The environment breaks a rule; the message names the rule, what was seen and
            a way out.
        TypeError: `env` is not an environment and does not make one.
    """
    return _run_all(_rules_for(env), lambda rule: _run_on_env(rule, env))


def check_agent(agent: Agent, env: AnyEnv | Callable[..., AnyEnv]) -> dict[str, str]:
    """Check a learner, from any library, against every rule.

    Texts come from random play of `env`. Rules about `LearningFunctions` (advantages, loss, KL,
    standardisation) and `TrainingFunctions` (comparing answers, updates, held-out texts) are
    checked if the agent has these. The weights change in `update` alone, which comes last.

    Args:
        agent: Anything with the methods of `Agent`, such as a few lines around a trained model. It
            may have methods of `LearningFunctions` and `TrainingFunctions` too.
        env: The environment the agent was made for, or something that makes it.

    Returns:
        The rules that could not be checked, with the reason.

    Raises:
        AssertionError: A rule is broken; the message names it, what was seen and a way out.
    """
    case = trial(agent, env)
    try:
        rules = AGENT_RULES + LEARNING_RULES + TRAINING_RULES
        return _run_all(rules, lambda rule: _run(rule, case))
    finally:
        case.make.close()


def check_policy(
    policy: Any, prompts: Sequence[Sequence[int]] | None = None, *, tolerance: float = 1e-4
) -> dict[str, str]:
    """Check a policy, such as one around a network of your own, against every rule.

    It is read, stepped, trained, saved and copied; with a cache and without, in batches and alone.
    The policy itself does not change: copies of it do. No environment is needed.

    Args:
        policy: A subclass of `policies.Policy` that is made without arguments, a function that
            makes the policy, or the policy itself. Only the first two show state that `save`
            forgets, since a policy that is made anew does not share it.
        prompts: Rows of ids that texts begin with, for policies that cannot read any ids: those of
            encoder-decoders are sources. Random ids if None.
        tolerance: Largest difference of log-probabilities in nats, entropies and values; the
            default is for weights in fp32.

    Returns:
        The rules that could not be checked, with the reason.

    Raises:
        AssertionError: A rule is broken; the message has its name, what was seen and the way out.
    """
    case = PolicyTrial(policy, prompts, tolerance)
    return _run_all(POLICY_RULES, lambda rule: _run(rule, case))


def _run_all(rules: Sequence[Any], run: Callable[[Any], None]) -> dict[str, str]:
    skipped = {}
    for rule in rules:
        try:
            run(rule)
        except SkipTest as reason:
            skipped[rule.__name__] = str(reason)
    return skipped


class TextEnvContract:
    """The rules for a single environment as tests; a test class inherits it and defines `make`."""

    def make(self, **kwargs: Any) -> AnyEnv:
        """The environment, with `kwargs` (`render_mode`) passed on to it."""
        raise NotImplementedError("define make(self, **kwargs): it returns the environment")


class TextVectorEnvContract:
    """The rules for a vector environment as tests; see `TextEnvContract`."""

    def make(self, **kwargs: Any) -> AnyEnv:
        """The vector, with `kwargs` (`render_mode`, `autoreset_mode`, `num_envs`) passed on."""
        raise NotImplementedError("define make(self, **kwargs): it returns the vector environment")


def _rules_for(env: AnyEnv | Callable[..., AnyEnv]) -> tuple[Rule, ...]:
    make = Maker(env)
    is_vector = isinstance(make(), VectorEnv)
    make.close()
    return VECTOR_RULES if is_vector else ENV_RULES


def _run_on_env(rule: Rule, env: AnyEnv | Callable[..., AnyEnv]) -> None:
    make = Maker(env)
    try:
        _run(rule, make)
    finally:
        make.close()


def _run(rule: Callable[[Any], None], case: Any) -> None:
    """Check one rule; any exception becomes an AssertionError with the rule's name."""
    try:
        rule(case)
    except SkipTest:
        raise
    except AssertionError as error:
        raise AssertionError(f"{rule.__name__}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{rule.__name__}: {type(error).__name__}: {error}") from error


def _add_tests(contract: type, rules: Sequence[Rule]) -> None:
    """A method `test_...` for each rule."""
    for rule in rules:

        def test(self: Any, rule: Rule = rule) -> None:
            _run_on_env(rule, self.make)

        test.__name__, test.__doc__ = f"test_{rule.__name__}", rule.__doc__
        setattr(contract, test.__name__, test)


_add_tests(TextEnvContract, ENV_RULES)
_add_tests(TextVectorEnvContract, VECTOR_RULES)
