"""Answers measured token by token, for the report."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.evaluation.answers import Answers, answer_outputs, answer_prompts
from agents.evaluation.numbers import numbers_of
from agents.report.parts import TokenTrace
from agents.runs.streaming import token_texts
from policies import Policy
from textenv import ListPrompts, Prompt, TextVectorEnv, Tokenizer
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
    `log-probability`. What a world says between two turns has NaN: nobody chose it.

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
    numbers = numbers_of(ListPrompts(prompts).prompts, seed)
    for begin in range(0, len(prompts), envs.num_envs):
        some = slice(begin, begin + envs.num_envs)
        answers = answer_prompts(
            policy, envs, prompts[some], temperature=temperature, generators=numbers[some]
        )
        measures = _measures(policy, reference, answers, temperature)
        for row, sample in enumerate(answers.samples):
            places = answers.mask[row].nonzero()[0]
            behind = slice(places[0], places[-1] + 1)
            trace = TokenTrace(
                title=f"{title} {sample.score:.3f}".strip(),
                prompt=sample.prompt,
                tokens=_texts(envs.tokenizer, answers.tokens[row], behind),
                measures={name: table[row, behind].tolist() for name, table in measures.items()},
            )
            traces.append(trace)
    return traces


def _measures(
    policy: Policy, reference: Policy | None, answers: Answers, temperature: float
) -> dict[str, np.ndarray]:
    """The measures by their names, each of shape (k, L); NaN where nothing was chosen."""
    outputs = answer_outputs(policy, answers, temperature)
    logprobs, values = (x.double().cpu().numpy() for x in (outputs.logprobs, outputs.values))
    measures = {"reward": answers.rewards}
    if reference is not None:
        expected = answer_outputs(reference, answers, temperature).logprobs
        measures["KL"] = logprobs - expected.double().cpu().numpy()
    measures |= {"value": values, "log-probability": logprobs}
    return {name: np.where(answers.mask, table, np.nan) for name, table in measures.items()}


def _texts(tokenizer: Tokenizer, tokens: NDArray[np.int64], places: slice) -> list[str]:
    """The text of each token at these places; a stop token is called by its name."""
    ids, texts = tokens.tolist(), list[str]()
    begin, stops = places.start, stop_tokens_of(tokenizer)
    for place in range(places.start, places.stop):
        if ids[place] in stops:
            texts += [*token_texts(tokenizer, ids[begin:place], ids[:begin]), STOP]
            begin = place + 1
    return texts + token_texts(tokenizer, ids[begin : places.stop], ids[:begin])
