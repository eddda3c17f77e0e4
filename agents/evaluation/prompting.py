"""Prompts that show or ask for the way to an answer: few-shot and chain-of-thought.

A language model that was only pretrained continues text. Worked examples before a question show it
what to write (Brown et al., "Language Models are Few-Shot Learners", 2020). If the examples write
out their reasoning, the model reasons before it answers (Wei et al., "Chain-of-Thought Prompting
Elicits Reasoning in Large Language Models", 2022). "Let's think step by step." alone does some of
that (Kojima et al., "Large Language Models are Zero-Shot Reasoners", 2022). Everything here is text
to text; nothing checks whether a prompt fits a context.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from textenv import Prompt
from textenv.errors import PromptError
from textenv.records import Records, example, read_records, short
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
        description: What the task is, in front of everything; `end` follows it.
    """

    question: str = "Q: "
    answer: str = "\nA: "
    end: str = "\n\n"
    description: str = ""


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

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """A worked example from a record in any of the forms that examples have.

        Those are the forms that fine-tuning reads, of one question and its answer; `reasoning` may
        stand beside them.

        Raises:
            ValueError: It has none of the forms, or more than one question.
        """
        found = example(record)
        reasoning = record.get("reasoning") or ""
        if not isinstance(reasoning, str):
            raise ValueError(f"'reasoning' is {short(reasoning)}, not a text")
        if found.messages is None:
            return cls(found.prompt, found.answer, reasoning)
        asked = [message for message in found.messages if message["role"] != "system"]
        if [message["role"] for message in asked] != ["user", "assistant"]:
            raise ValueError(
                f"the record has {len(asked)} messages: a worked example is one question and its "
                "answer"
            )
        question, answer = (str(message["content"]) for message in asked)
        return cls(question, answer, reasoning)

    @property
    def answer_with_reasoning(self) -> str:
        """The reasoning, then the answer, in words that `extract_answer` reads."""
        return f"{self.reasoning} {ANSWER_IS} {self.answer}."


def read_worked(source: Records) -> list[Worked]:
    """The worked examples of a file or of any records; see `Worked.from_record`.

    Raises:
        MissingFileError: There is no such file.
        MalformedRecordError: Some records are not examples; the first ten of these are listed.
    """
    return read_records(source, Worked.from_record, "worked examples")


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
    for number, one in enumerate(examples):
        if not one.reasoning:
            raise ValueError(f"example {number} has no reasoning to show: {one.question!r}")
    shown = [(e.question, e.answer_with_reasoning) for e in examples]
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


def with_shots(
    prompts: Iterable[Prompt],
    examples: Sequence[Worked],
    shots: int,
    layout: Layout = LAYOUT,
    *,
    reasoning: bool = False,
) -> list[Prompt]:
    """The prompts with worked examples in front of them; their columns stay.

    A chat gets the examples as earlier turns, and the description as its system message. The first
    `shots` examples are shown, always the same ones; an example that is the prompt itself is left
    out, and the next one takes its place.

    Args:
        prompts: Prompts as texts or chats.
        examples: Worked examples, more than `shots` if prompts may be among them.
        shots: How many to show; 0 gives the layout and the description alone.
        layout: The text around questions and answers of a text.
        reasoning: Show the reasoning of each example before its answer.

    Raises:
        PromptError: A prompt is given as ids, or there are too few examples for it.
        ValueError: An example has no reasoning to show.
    """
    made = []
    for number, prompt in enumerate(prompts):
        if prompt.tokens is not None:
            raise PromptError(f"prompt {number} is given as ids; worked examples need its text")
        asked = prompt.last_text
        shown = [one for one in examples if one.question != asked][:shots]
        if len(shown) < shots:
            raise PromptError(
                f"{shots} worked examples are asked for, and there are {len(shown)} for prompt "
                f"{number}, {short(asked)}, itself left out: give more, or ask for fewer"
            )
        if prompt.messages is None:
            put = chain_of_thought if reasoning else few_shot
            made.append(prompt.with_last_text(put(shown, asked, layout)))
        else:
            made.append(replace(prompt, text="", messages=_turns(prompt, shown, layout, reasoning)))
    return made


def _turns(
    prompt: Prompt, shown: Sequence[Worked], layout: Layout, reasoning: bool
) -> list[Mapping[str, Any]]:
    """A chat with worked examples as turns, behind its own system message."""
    messages = list(prompt.messages or ())
    first = 1 if messages[0]["role"] == "system" else 0
    system = messages[:first]
    if layout.description:
        said = [layout.description, *(message["content"] for message in system)]
        system = [{"role": "system", "content": "\n".join(said)}]
    turns = []
    for one in shown:
        answer = one.answer_with_reasoning if reasoning else one.answer
        turns.append({"role": "user", "content": one.question})
        turns.append({"role": "assistant", "content": answer})
    return [*system, *turns, *messages[first:]]


def _shown(shown: Sequence[tuple[str, str]], question: str, layout: Layout) -> str:
    first = f"{layout.description}{layout.end}" if layout.description else ""
    worked = (f"{layout.question}{q}{layout.answer}{a}{layout.end}" for q, a in shown)
    return first + "".join(worked) + f"{layout.question}{question}{layout.answer}".rstrip(" ")
