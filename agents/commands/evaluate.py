"""`textenv eval`: its options."""

from dataclasses import dataclass
from pathlib import Path

from agents.commands.options import setting
from agents.commands.shared import (
    MODEL_AS_JUDGE,
    OWN_FUNCTION,
    Answering,
    Conversation,
    Judging,
    Masked,
    OwnClassifier,
    Prompted,
    Published,
    RewardModels,
    Sampling,
    Saved,
)

JUDGES = ("afinn", "textblob", "chinese", "terminal")
"""Keys of `agents.evaluation.JUDGES`, which needs torch and is not imported here; and a person."""

SEARCHES = ("sample", "best-of-n", "best-first", "mcts")
"""Keys of `agents.jobs.searches`, which needs torch."""


@dataclass(frozen=True, kw_only=True)
class Answers(Prompted, Sampling, Masked, Published):
    """What to answer, and how.

    Attributes:
        policies: Folders written by policy.save, or models of Hugging Face, by their folders or
            their names on the hub (owner/name).
        prompts: Prompts: a .txt file (one a line), a .jsonl, .json, .csv, .tsv or .parquet file,
            perhaps compressed (records with a 'prompt', or conversations, with --frame), or
            file.py:function. What the --world begins with if not given.
        max_new_tokens: Longest answer, in tokens; of a conversation all turns and replies.
        template: A function from a prompt's text to the text to use, such as a few-shot prompt:
            file.py:function, or agents.evaluation:step_by_step.
        answers: Answers of each policy; prompts of a list are taken at even distances.
        temperature: Logits are divided by it; less is more predictable.
        rows: Answers that are written at a time.
    """

    policies: list[Path] = setting(metavar="POLICY...", positional=True)
    prompts: str | None = setting(None, metavar="FILE")
    template: str | None = setting(None, metavar="FILE:NAME")
    answers: int = setting(256, minimum=2)
    temperature: float = setting(0.8, minimum=0.01)
    rows: int = setting(128, minimum=1)


@dataclass(frozen=True)
class Asking:
    """How to put the prompts.

    Attributes:
        examples: Worked examples to show in front of each prompt, in this order: a file of
            records of one question and its answer, as textenv sft reads them.
        shots: How many of them to show. May be given several times, for one row each; stop strings
            are then an empty line, if none are given.
        description: What the task is, in front of the examples.
        reasoning: Show the reasoning of each example before its answer.
        wordings: Put each prompt in several wordings, and measure how much depends on them: a text
            file, one wording a line with {prompt} in it.
    """

    examples: Path | None = setting(None, metavar="FILE")
    shots: list[int] = setting([], minimum=0)
    description: str = ""
    reasoning: bool = False
    wordings: Path | None = setting(None, metavar="FILE")


@dataclass(frozen=True)
class Searching:
    """How to look for better answers than samples are.

    Attributes:
        search: Look for the answer that the reward likes best, instead of sampling one: by Monte
            Carlo tree search, best-first, or among samples (best-of-n). May be given several times,
            for one row each; 'sample' is the row without a search.
        expansions: Beginnings of answers that a search reads for each prompt, or samples of
            best-of-n.
        by_value: Judge beginnings by the value head, which PPO and A2C train, instead of by a
            sampled continuation that is scored.
        moves: Tokens that are looked at behind each beginning, the likeliest.
    """

    search: list[str] = setting([], names=SEARCHES)
    expansions: int = setting(64, minimum=1)
    by_value: bool = False
    moves: int = setting(16, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Measures(RewardModels, OwnClassifier):
    """What to measure.

    Attributes:
        reward: A function of a list of episodes: file.py:function or package.module:function.
        judge: Who decides which answer wins; a function of yours takes a prompt and an answer, and
            judge:... asks a language model which of two answers is better; terminal asks you, and
            does not tell whose the answers are. The reward does, if not given.
        votes: What you have said with --judge terminal, a .jsonl file of rankings. Run the same
            command again to go on.
        reference: A policy of the same vocabulary, from which the KL is measured.
        text: Held-out text for the perplexity: a file of UTF-8, or of tokens (.tokens).
        toxicity: Measure the share of answers with a swear word or an insult (English, and Chinese
            where prompts are), or what the --classifier says.
        refusals: Measure the share of refusals among prompts that are to be declined, and among
            the others; a column 'refuse' of the prompts says which are.
    """

    reward: str | None = setting(None, metavar="FILE:NAME")
    judge: str | None = setting(
        None, metavar="NAME", names=JUDGES, others={**MODEL_AS_JUDGE, **OWN_FUNCTION}
    )
    votes: Path = setting(Path("votes.jsonl"), metavar="FILE")
    reference: Path | None = setting(None, metavar="FOLDER")
    text: Path | None = setting(None, metavar="FILE")
    toxicity: bool = False
    refusals: bool = False


@dataclass(frozen=True, kw_only=True)
class Output(Saved):
    """What to write.

    Attributes:
        json: Write all figures to this file. Answers that are given on the way are saved beside it:
            run the same command again to resume.
        report: Write a page to this file, with some answers token by token.
        save_every: With --json, save at the end of a batch, every this many answers (50) or minutes
            (2m); 0 saves where a signal ends the command only. If not given, every two minutes, or
            every 50 times the seconds that the last save took where that is longer.
    """

    json: Path | None = setting(None, metavar="FILE")
    report: Path | None = setting(None, metavar="FILE")


@dataclass(frozen=True)
class EvaluateSettings:
    """Compare policies on the same prompts: one table.

    Give at least one of --reward, --reward-model and --judge, or a --world that pays. Wins are
    against the first policy, with 95% intervals over prompts, as they are and as they would be if
    answers were equally long; those against each other are in the file of --json. How much higher a
    policy scores ("above" the first) is estimated from answers on the same random numbers that
    both policies have read.
    """

    answers: Answers
    asking: Asking
    searching: Searching
    conversation: Conversation
    measures: Measures
    judging: Judging
    machine: Answering
    output: Output
