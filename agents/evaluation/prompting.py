"""Prompts that show or ask for the way to an answer: few-shot and chain-of-thought.

A language model that was only pretrained continues text. Worked examples before a question show it
what to write (Brown et al., "Language Models are Few-Shot Learners", 2020). If the examples write
out their reasoning, the model reasons before it answers (Wei et al., "Chain-of-Thought Prompting
Elicits Reasoning in Large Language Models", 2022). "Let's think step by step." alone does some of
that (Kojima et al., "Large Language Models are Zero-Shot Reasoners", 2022). Everything here is text
to text; nothing checks whether a prompt fits a context.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from textenv import Prompt
from textenv.errors import PromptError
from textenv.tasks import stated

STEP_BY_STEP = "Let's think step by step."
ANSWER_IS = "The answer is"


@dataclass(frozen=True)
class Layout:
    """The text around questions and answers.

    Attributes:
        question: Text before each question.
        answer: Text between a question and its answer.
        end: Text after each worked example.
    """

    question: str = "Q: "
    answer: str = "\nA: "
    end: str = "\n\n"


@dataclass(frozen=True)
class Worked:
    """A worked example.

    Attributes:
        question: The question.
        answer: The right answer.
        reasoning: The way to the answer, for `chain_of_thought`.
    """

    question: str
    answer: str
    reasoning: str = ""


LAYOUT = Layout()


def few_shot(examples: Sequence[Worked], question: str, layout: Layout = LAYOUT) -> str:
    r"""The examples with their answers, then the question, up to where its answer begins.

    The prompt does not end with a space: in byte-pair vocabularies a space belongs to the token
    after it.

    >>> few_shot([Worked("2 + 2?", "4")], "3 + 4?")
    'Q: 2 + 2?\nA: 4\n\nQ: 3 + 4?\nA:'
    """
    return _shown([(e.question, e.answer) for e in examples], question, layout)


def chain_of_thought(examples: Sequence[Worked], question: str, layout: Layout = LAYOUT) -> str:
    r"""Like `few_shot`, with the reasoning before each answer; `extract_answer` reads the result.

    >>> chain_of_thought([Worked("2 + 2?", "4", "Two and two more.")], "3 + 4?")
    'Q: 2 + 2?\nA: Two and two more. The answer is 4.\n\nQ: 3 + 4?\nA:'

    Raises:
        ValueError: An example has no reasoning.
    """
    for number, example in enumerate(examples):
        if not example.reasoning:
            raise ValueError(f"example {number} has no reasoning to show: {example.question!r}")
    shown = [(e.question, f"{e.reasoning} {ANSWER_IS} {e.answer}.") for e in examples]
    return _shown(shown, question, layout)


def step_by_step(question: str, layout: Layout = LAYOUT) -> str:
    r"""The question and the beginning of a reasoned answer, without examples.

    >>> step_by_step("3 + 4?")
    "Q: 3 + 4?\nA: Let's think step by step."
    """
    return f"{layout.question}{question}{layout.answer}{STEP_BY_STEP}"


def ask_for_answer(prompt: str, reasoning: str) -> str:
    r"""The second prompt of Kojima et al.: everything so far, then a request for the answer alone.

    >>> ask_for_answer(step_by_step("3 + 4?"), " Three and four more.")
    "Q: 3 + 4?\nA: Let's think step by step. Three and four more.\nTherefore, the answer is"
    """
    return f"{prompt}{reasoning}\nTherefore, the answer is"


def extract_answer(text: str) -> str | None:
    """The text after the last "the answer is"; `textenv.tasks.stated` under another name.

    `textenv.tasks` has more functions like this, and compares numbers.

    >>> extract_answer("Three and 4 more. The answer is 7.5. Q: what")
    '7.5'

    Returns:
        None if the phrase does not occur, or nothing follows it.
    """
    return stated(text)


def with_template(prompts: Iterable[Prompt], template: Callable[[str], str]) -> list[Prompt]:
    """The prompts with their texts put through `template`, of chats the last message.

    Their columns stay.

    >>> with_template([Prompt("3 + 4?", {"answer": "7"})], step_by_step)[0].columns
    {'answer': '7'}

    Raises:
        PromptError: A prompt is given as ids.
    """
    made = []
    for number, prompt in enumerate(prompts):
        if prompt.tokens is not None:
            raise PromptError(f"prompt {number} is given as ids; a template needs its text")
        made.append(prompt.with_last_text(template(prompt.last_text)))
    return made


def _shown(shown: Sequence[tuple[str, str]], question: str, layout: Layout) -> str:
    worked = (f"{layout.question}{q}{layout.answer}{a}{layout.end}" for q, a in shown)
    return "".join(worked) + f"{layout.question}{question}{layout.answer}".rstrip(" ")
