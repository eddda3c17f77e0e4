"""Questions with options: which one a policy finds likeliest, and how often that is right.

Multiple choice and cloze are one thing here: options stand behind a prompt, or in the blank of a
text with the rest of it behind them. Scores have the names that they have in lm-evaluation-harness.
A sum of log-probabilities favours short options; `acc_norm` divides by their characters, and
`acc_mutual_info` takes off what each option is worth without the question (Holtzman et al.,
"Surface Form Competition", 2021).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from agents.evaluation.continuations import Scored, score_continuations
from agents.evaluation.intervals import Interval, bootstrap_interval
from agents.evaluation.prompting import LAYOUT, Layout, Worked, with_shots
from policies import Policy
from textenv import Prompt
from textenv.errors import PromptError

BLANK = "__"


@dataclass(frozen=True)
class Question:
    """A question with options.

    Attributes:
        prompt: Text before the options.
        options: The options.
        answer: Number of the right one, from 0; None if it is not known.
        between: Text between the prompt and an option, which is scored with it.
        rest: Text behind each option, which is scored with it.

    Raises:
        PromptError: There are fewer than two options, or no option has the answer's number.
    """

    prompt: str
    options: Sequence[str]
    answer: int | None = None
    between: str = " "
    rest: str = ""

    def __post_init__(self) -> None:
        count = len(self.options)
        if count < 2 or not (self.answer is None or 0 <= self.answer < count):
            raise PromptError(
                f"the question {self.prompt!r} has {count} options and the answer {self.answer}: "
                "give two options or more, and the number of the right one, from 0"
            )


def cloze(
    text: str, words: Sequence[str], answer: int | None = None, *, blank: str = BLANK
) -> Question:
    """A text with a blank, and words that may fill it.

    >>> asked = cloze("On the whole this is a __ film.", ["good", "bad"])
    >>> asked.prompt, asked.rest
    ('On the whole this is a ', ' film.')

    Raises:
        PromptError: The text has no blank, or several.
    """
    before, *rest = text.split(blank)
    if len(rest) != 1:
        raise PromptError(f"{text!r} has {len(rest)} blanks {blank!r}; it must have one")
    return Question(before, words, answer, "", rest[0])


@dataclass(frozen=True)
class OptionScores:
    """How likely each option of a question is.

    Attributes:
        question: The question, of k options.
        scored: The options behind the prompt, k of them.
        unconditional: The options behind nothing, k of them; None if they were not asked for.
    """

    question: Question
    scored: Sequence[Scored]
    unconditional: Sequence[Scored] | None = None

    @property
    def logprobs(self) -> NDArray[np.float64]:
        """Log-likelihood of each option in nats, shape (k,)."""
        return np.array([scored.logprob for scored in self.scored])

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of each option among the options, shape (k,)."""
        return _normalised(self.logprobs)

    @property
    def by_measure(self) -> dict[str, NDArray[np.float64]]:
        """What the options are compared by, each of shape (k,), by the name of its accuracy."""
        options, logprobs = self.question.options, self.logprobs
        measures = {
            "acc": logprobs,
            "acc_norm": logprobs / [max(len(option), 1) for option in options],
            "acc_bytes": logprobs / [max(len(option.encode()), 1) for option in options],
            "acc_tokens": logprobs / [scored.tokens for scored in self.scored],
        }
        if self.unconditional is not None:
            alone = np.array([scored.logprob for scored in self.unconditional])
            measures["acc_mutual_info"] = logprobs - alone
        return measures

    def chosen(self, measure: str = "acc") -> int:
        """Number of the option that is best by a measure; the first one of equals."""
        return int(self.by_measure[measure].argmax())


def score_options(
    policy: Policy,
    questions: Sequence[Question],
    *,
    unconditional: bool = False,
    on_scored: Callable[[int], object] = lambda count: None,
) -> list[OptionScores]:
    """The log-likelihood of every option; a prompt is encoded once for its options.

    Args:
        policy: The policy that reads; it must have a tokenizer.
        questions: The questions.
        unconditional: Score the options without the question too, for `acc_mutual_info`.
        on_scored: Called with the number of different continuations so far after each pass.

    Raises:
        ValueError: An option is empty.
        PromptTooLongError: A prompt and an option do not fit the policy's context.
        TokenizerError: There is no tokenizer; or a prompt is empty and nothing begins a text.
    """
    asked = [(q.prompt, q.between + option + q.rest) for q in questions for option in q.options]
    alone = [("", said) for _, said in asked] if unconditional else []
    scored = iter(score_continuations(policy, asked + alone, on_scored=on_scored))
    behind = [[next(scored) for _ in q.options] for q in questions]
    if not unconditional:
        return [OptionScores(*both) for both in zip(questions, behind, strict=True)]
    without = [[next(scored) for _ in q.options] for q in questions]
    return [OptionScores(*three) for three in zip(questions, behind, without, strict=True)]


def accuracies(scores: Sequence[OptionScores]) -> dict[str, Interval]:
    """Share of the questions whose best option is right, by measure, with 95% intervals.

    `acc`, `acc_norm` (by characters), `acc_bytes` and `acc_mutual_info` are those of
    lm-evaluation-harness; `acc_tokens` divides by the number of tokens. `greedy` is the share of
    the questions whose right option is what the policy itself would write, which the harness calls
    `exact_match`.

    Raises:
        PromptError: There are no questions, or the answer to one is not known.
    """
    if not scores:
        raise PromptError("there are no questions")
    for one in scores:
        if one.question.answer is None:
            raise PromptError(f"the question {one.question.prompt!r} has no answer to compare with")
    right = {
        measure: [float(one.chosen(measure) == one.question.answer) for one in scores]
        for measure in scores[0].by_measure
    }
    right["greedy"] = [float(one.scored[one.question.answer or 0].greedy) for one in scores]
    return {measure: bootstrap_interval(values) for measure, values in right.items()}


def accuracies_by_shots(
    policy: Policy,
    questions: Sequence[Question],
    examples: Sequence[Worked],
    shots: Sequence[int],
    layout: Layout = LAYOUT,
) -> dict[int, dict[str, Interval]]:
    """`accuracies` by the number of worked examples in front of each question.

    Args:
        policy: The policy that reads; it must have a tokenizer.
        questions: The questions; their prompts are put into the layout.
        examples: Worked examples, shown in this order; a question's own one is left out.
        shots: Numbers of examples.
        layout: The text around questions and answers.

    Raises:
        PromptError: There are too few examples, no questions, or no answer to one.
        PromptTooLongError: A prompt and an option do not fit the policy's context.
    """
    found = {}
    for count in shots:
        prompts = with_shots([Prompt(q.prompt) for q in questions], examples, count, layout)
        put = [replace(q, prompt=p.text) for q, p in zip(questions, prompts, strict=True)]
        found[count] = accuracies(score_options(policy, put))
    return found


def label_probabilities(
    policy: Policy,
    texts: Sequence[str],
    words: Mapping[str, Sequence[str]],
    *,
    blank: str = BLANK,
    content_free: str | None = None,
) -> NDArray[np.float64]:
    """Classification by prompt: the probability of each label, shape (n, labels), rows sum to 1.

        p(label | text) is in proportion to the sum over its words w of p(text with w in the blank)

    Words are the verbaliser of Schick and Schuetze (2021). With `content_free` the probabilities
    are divided by those of that text, which takes off what the policy prefers whatever it is asked
    (contextual calibration; Zhao et al., "Calibrate Before Use", 2021).

    Args:
        policy: The policy that reads; it must have a tokenizer.
        texts: Texts with one blank each.
        words: The words that stand for each label, as they stand in the blank.
        blank: What marks the blank.
        content_free: The same prompt about nothing, such as "N/A", with the blank.

    Raises:
        PromptError: A text has not one blank, or there is one word alone.
        PromptTooLongError: A text does not fit the policy's context.
        TokenizerError: There is no tokenizer.
    """
    every = [word for some in words.values() for word in some]
    owner = np.repeat(np.arange(len(words)), [len(some) for some in words.values()])
    fill = partial(cloze, words=every, blank=blank)
    asked = [fill(text) for text in texts]
    if content_free is not None:
        asked.append(fill(content_free))
    found = np.array([one.probabilities for one in score_options(policy, asked)])
    by_label = np.stack([found[:, owner == label].sum(1) for label in range(len(words))], axis=1)
    if content_free is not None:
        by_label = by_label[:-1] / by_label[-1]
    return by_label / by_label.sum(1, keepdims=True)


def _normalised(logprobs: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(logprobs - logprobs.max())
    return weights / weights.sum()
