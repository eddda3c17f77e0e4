"""Answers measured token by token, for the report."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.evaluation.answers import Answers, answer_outputs, answer_prompts
from agents.report.parts import TokenTrace
from agents.runs.streaming import token_texts
from policies import Policy
from textenv import Prompt, TextVectorEnv, Tokenizer
from textenv.seeding import keyed_generator
from textenv.tokenizers import stop_tokens_of

STOP = "⟨stop⟩"


def token_traces(
    policy: Policy,
    envs: TextVectorEnv,
    prompts: Sequence[Prompt],
    *,
    reference: Policy | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    title: str = "",
) -> list[TokenTrace]:
    """Answer each of `prompts` once in `envs`, and measure each token.

    The measures are `reward` (the environment's, which for a reward of whole answers stands at the
    last token), `KL` (log-probability under the policy minus that under the reference; its sum is
    the answer's share of the KL), `value` (what the policy expected before it chose the token) and
    `log-probability`.

    Args:
        policy: The policy that answers; its own random numbers are not used.
        envs: An environment, whose arguments are used but for the prompts.
        prompts: At least one.
        reference: The policy for the KL, which is left out without it.
        temperature: Logits are divided by this before sampling and in the log-probabilities.
        seed: Seed of the sampling.
        title: Title of each trace, in front of its score.

    Raises:
        PromptError: A prompt cannot be used in `envs`.
        RewardError: The reward failed.
    """
    traces: list[TokenTrace] = []
    for begin in range(0, len(prompts), envs.num_envs):
        some = prompts[begin : begin + envs.num_envs]
        numbers = [keyed_generator(seed, begin + place) for place in range(len(some))]
        answers = answer_prompts(policy, envs, some, temperature=temperature, generators=numbers)
        measures = _measures(policy, reference, answers, temperature)
        for row, sample in enumerate(answers.samples):
            chosen = answers.mask[row]
            trace = TokenTrace(
                title=f"{title} {sample.score:.3f}".strip(),
                prompt=sample.prompt,
                tokens=_texts(envs.tokenizer, answers.tokens[row], chosen),
                measures={name: table[row, chosen].tolist() for name, table in measures.items()},
            )
            traces.append(trace)
    return traces


def _measures(
    policy: Policy, reference: Policy | None, answers: Answers, temperature: float
) -> dict[str, np.ndarray]:
    """The measures by their names, each of shape (k, L)."""
    outputs = answer_outputs(policy, answers, temperature)
    logprobs, values = (x.double().cpu().numpy() for x in (outputs.logprobs, outputs.values))
    measures = {"reward": answers.rewards}
    if reference is not None:
        expected = answer_outputs(reference, answers, temperature).logprobs
        measures["KL"] = logprobs - expected.double().cpu().numpy()
    return measures | {"value": values, "log-probability": logprobs}


def _texts(tokenizer: Tokenizer, tokens: NDArray[np.int64], chosen: NDArray[np.bool_]) -> list[str]:
    """The text of each chosen token; a stop token at the end is called by its name."""
    prompt, answer = tokens[: chosen.argmax()].tolist(), tokens[chosen].tolist()
    if answer and answer[-1] in stop_tokens_of(tokenizer):
        return [*token_texts(tokenizer, answer[:-1], prompt), STOP]
    return token_texts(tokenizer, answer, prompt)
