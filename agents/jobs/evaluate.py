"""The job of `textenv eval`: policies compared on the same prompts."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from agents.commands.evaluate import Asking, EvaluateSettings, Measures
from agents.commands.shared import Machine, Published
from agents.evaluation import (
    LAYOUT,
    PairJudge,
    Robustness,
    Unscored,
    compare,
    comparison_table,
    in_wordings,
    judge_reward,
    load_judge,
    read_wordings,
    read_worked,
    robustness,
    robustness_table,
    row_name,
    swear_words,
    table_cells,
    with_shots,
    with_template,
)
from agents.evaluation.intervals import plain
from agents.evaluation.refusals import DUE, due_of
from agents.feedback.from_people.blind import BlindComparison
from agents.jobs.begin import begin_with
from agents.jobs.classifiers import own_classifier
from agents.jobs.environments import (
    check_conversation,
    environment_for,
    fit_prompts,
    frame_by_option,
    frame_of,
    room_for_prompts,
    rules_of,
)
from agents.jobs.kept_answers import KeptAnswers
from agents.jobs.labellers import TERMINAL
from agents.jobs.machine import device_named, to_machine
from agents.jobs.models import ModelJudge, is_judge, model_judge
from agents.jobs.outputs import check_file, write_file
from agents.jobs.reward_models import reward_model_of
from agents.jobs.searches import check_values, searches
from agents.report import TableData, token_traces, write_report
from agents.runs.stages import Stages
from agents.supervised.token_stream import open_stream
from policies import Policy, tokenizer_of
from policies.checkpoint import is_published, saved_tokenizer
from textenv import ListPrompts, Prompt, PromptSource, TextVectorEnv, load_prompts
from textenv.errors import OptionError, PromptError, VocabularyMismatchError
from textenv.files import read_text
from textenv.loading import load_function, load_object
from textenv.prompts import NoPrompts
from textenv.reward_trial import try_reward
from textenv.tokenizers import encode_prompt

TRACED = 5
"""Prompts whose answers the report shows token by token."""


def run(settings: EvaluateSettings) -> None:
    """Let the policies answer, measure, and show and write one table.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    _check(settings)
    with frame_by_option():
        _compare(settings)


def _compare(settings: EvaluateSettings) -> None:
    wanted, measures, machine = settings.answers, settings.measures, settings.machine
    asking = settings.asking
    talk = settings.conversation
    console = Console()
    compares: ModelJudge | None = None
    pair_judge: PairJudge | None = None
    if measures.judge == TERMINAL:
        check_file(measures.votes, "--votes")
        pair_judge = BlindComparison(measures.votes, console=console, seed=machine.seed).prefer
    elif measures.judge is not None and is_judge(measures.judge):
        compares = model_judge(measures.judge, settings.judging, machine)
        pair_judge = compares.judge.prefer
    decides = None if pair_judge or measures.judge is None else load_judge(measures.judge)
    # The judge's scores are the reward where nothing else pays.
    judged = None if decides is None or talk.world is not None else judge_reward(decides)
    # A judge of pairs gives no answer a score.
    scored = _reward(measures, machine) or judged or (Unscored() if pair_judge else None)
    source = NoPrompts() if wanted.prompts is None else load_prompts(wanted.prompts)
    asked = _prompts(source, wanted.template, wanted.answers, machine.seed)
    ways, answer = _ways(asked, asking), searches(settings.searching)
    if asking.wordings is not None and pair_judge is not None:
        raise OptionError(
            "--wordings compares scores of answers, and a judge of pairs gives none: give --reward "
            "or another --judge"
        )
    if asking.shots and not wanted.stop_strings and asked[0].messages is None:
        wanted = dataclasses.replace(wanted, stop_strings=[LAYOUT.end])
    due = due_of(prompt.columns.get(DUE) for prompt in asked) if measures.refusals else None
    tokenizer = saved_tokenizer(wanted.policies[0]) or "bytes"
    for tried in (measures.reward, decides and judge_reward(decides)):
        if tried is not None and not talk.has_turns:  # before anything takes long
            try_reward(tried, next(iter(ways.values()))[0], tokenizer)
    names = folder_names(wanted.policies)
    named = {name: named_policy(folder, machine, wanted) for name, folder in names.items()}
    if settings.searching.by_value:
        check_values(named)
    for policy in named.values():
        # What does not fit a policy is refused before anything is answered.
        rules_of(wanted, policy, talk.longest_turn(wanted.max_new_tokens))
        room, frame = room_for_prompts(policy, wanted.max_new_tokens), frame_of(talk, policy)
        if wanted.prompts is None:
            continue
        for way, put in ways.items():
            listed = ListPrompts(put)
            fitting = fit_prompts(listed, policy, room, wanted.long_prompts, console, frame)
            assert isinstance(fitting, ListPrompts)  # made from one
            ways[way] = list(fitting.prompts)
    asked = next(iter(ways.values()))
    if any(len(put) != len(asked) for put in ways.values()) or (due and len(due) != len(asked)):
        raise OptionError(
            "--long-prompts drop leaves out other prompts in one way to put them than in another, "
            "or those that refusals are counted for: take --long-prompts cut"
        )
    against = None
    if measures.reference is not None:
        against = _reference(measures.reference, named, machine, wanted)
    classifier = None
    if measures.toxicity:
        classifier = own_classifier(measures) or swear_words([prompt.text for prompt in asked])
    text = measures.text
    # Read before anything is answered: a text that cannot be used is found at once.
    streams = {} if text is None else {p: _stream(text, p) for p in named.values()}

    def environment(policy: Policy) -> TextVectorEnv:
        return environment_for(
            policy,
            NoPrompts() if wanted.prompts is None else ListPrompts(asked),
            scored,
            rows=min(wanted.rows, len(asked)),
            max_new_tokens=wanted.max_new_tokens,
            masks=wanted,
            talk=talk,
        )

    total = len(named) * len(ways) * len(answer) * len(asked)
    kept = KeptAnswers(settings, console)
    with ExitStack() as until_answered:
        advance = until_answered.enter_context(Stages(console).bar("Answers", total, "answers"))
        on_batch = until_answered.enter_context(kept.saved_on_the_way())

        def on_answers(count: int) -> None:
            advance(count)
            if count == total:  # whoever compares them may need the screen
                until_answered.close()

        table = compare(
            named,
            environment,
            ways,
            reference=against,
            judge=decides,
            pair_judge=pair_judge,
            classifier=classifier,
            stream=streams.__getitem__ if streams else None,
            refusal_due=due,
            temperature=wanted.temperature,
            seed=machine.seed,
            answer=answer,
            on_answers=on_answers,
            before=dict(kept.rows),
            on_batch=on_batch,
        )
    title = f"{len(asked)} answers of each policy"
    console.print(comparison_table(table, title))
    figures = [row.numbers() for row in table]
    depends: dict[str, Robustness] = {}
    if asking.wordings is not None:
        rows = {row.name: row for row in table}
        for name in named:
            scores = {way: rows[row_name(name, way)].scores for way in ways}
            depends[name] = robustness(scores, seed=machine.seed)
        console.print(robustness_table(depends, "How much depends on the wording"))
        for row, figure in zip(table, figures, strict=True):
            whose = next(n for n in named if row.name in {row_name(n, way) for way in ways})
            figure["robustness"] = plain(depends[whose])
    if compares is not None:
        compares.tell(console)
    if settings.output.json is not None:
        write_file(settings.output.json, json.dumps(figures, indent=2))
    kept.finished()
    if settings.output.report is not None:
        traces = [
            trace
            for name, policy in named.items()
            for trace in token_traces(
                policy,
                environment(policy),
                asked[:TRACED],
                reference=against,
                temperature=wanted.temperature,
                seed=machine.seed,
                title=name,
            )
        ]
        tables = [TableData(title, *table_cells(table), note="Intervals: 95%, bootstrap.")]
        write_report(settings.output.report, "Evaluation", tables=tables, traces=traces)


def _ways(asked: Sequence[Prompt], asking: Asking) -> dict[str, list[Prompt]]:
    """The prompts in every way they are to be put, by the names of the ways; one way has no name.

    Raises:
        OptionError: Options do not go together.
        PromptError: Prompts are given as ids, or there are too few examples.
    """
    told = [f for f in ("examples", "description", "reasoning") if getattr(asking, f)]
    if told and not asking.shots:
        raise OptionError(f"--{told[0]} stands with worked examples: say how many with --shots")
    if asking.shots and asking.wordings is not None:
        raise OptionError("--shots and --wordings change prompts both: give one of them at a time")
    if asking.wordings is not None:
        wordings = read_wordings(asking.wordings)
        if len(wordings) < 2:
            raise OptionError(
                f"--wordings {asking.wordings} holds {len(wordings)} wordings: give two or more, "
                "one a line"
            )
        return in_wordings(asked, wordings)
    if not asking.shots:
        return {"": list(asked)}
    if any(asking.shots) and asking.examples is None:
        raise OptionError(f"--shots {max(asking.shots)} of which examples? Name a file, --examples")
    examples = [] if asking.examples is None else read_worked(asking.examples)
    layout = dataclasses.replace(LAYOUT, description=asking.description)
    try:
        return {
            f"{shots} shots": with_shots(asked, examples, shots, layout, reasoning=asking.reasoning)
            for shots in dict.fromkeys(asking.shots)
        }
    except ValueError as error:
        if isinstance(error, PromptError):
            raise
        raise OptionError(f"--reasoning: {error}") from error


def _check(settings: EvaluateSettings) -> None:
    """Find what cannot be used before anything is loaded."""
    measures, policies = settings.measures, settings.answers.policies
    if not policies:
        raise OptionError("nothing to compare: name the folder of one policy or more")
    if measures.reward is not None and measures.reward_model:
        raise OptionError("give --reward or --reward-model, not both")
    asked, talk = settings.answers, settings.conversation
    pays = bool(measures.reward or measures.reward_model or measures.judge)
    if not pays and not talk.has_turns:
        raise OptionError("nothing to measure: give --reward, --reward-model or --judge")
    if asked.prompts is None and talk.world is None and not talk.tools:
        raise OptionError("--prompts must be given: textenv eval --help says more")
    if measures.classifier is not None and not measures.toxicity:
        raise OptionError("--classifier measures nothing by itself: give --toxicity too")
    if asked.prompts is None and asked.template is not None:
        raise OptionError("--template changes prompts: name them with --prompts, or leave it out")
    check_conversation(talk, asked.prompts, pays)
    if settings.searching.search and (talk.has_turns or not pays):
        raise OptionError(
            "--search looks for single answers that a reward likes: leave out --world"
        )
    if settings.searching.search and settings.asking.wordings is not None:
        raise OptionError("--search and --wordings are two ways to make rows: give one at a time")
    if talk.has_turns and measures.reward is not None:
        load_object(measures.reward)  # not tried: it may look at turns, which only a world makes
    if measures.text is not None and not measures.text.is_file():
        raise OptionError(f"--text: there is no file {measures.text}")
    if len({folder.resolve() for folder in policies}) < len(policies):
        raise OptionError(f"a policy is named twice: {' '.join(map(str, policies))}")
    for flag, path in (("--json", settings.output.json), ("--report", settings.output.report)):
        if path is not None and not path.parent.is_dir():
            raise OptionError(f"there is no folder {path.parent} to write {path.name} into")
        if path is not None:
            check_file(path, flag)
    device_named(settings.machine.device)


def folder_names(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders by their own names, or by their paths where these are not unique."""
    short = {folder.name: folder for folder in folders}
    return short if len(short) == len(folders) else {str(folder): folder for folder in folders}


def named_policy(folder: Path, machine: Machine, published: Published) -> Policy:
    """The policy in `folder`; how it was `published` is said of those that were not saved here."""
    told = published if is_published(folder) else Published()
    policy = to_machine(begin_with(folder, told.stop, told.no_bos), machine)
    tokenizer_of(policy, f"the policy in {folder}")
    return policy


def _reference(
    folder: Path, policies: Mapping[str, Policy], machine: Machine, published: Published
) -> Policy:
    reference = named_policy(folder, machine, published)
    for name, policy in policies.items():
        if policy.tokenizer.fingerprint != reference.tokenizer.fingerprint:  # type: ignore[union-attr]
            raise VocabularyMismatchError(
                f"{name} and the reference {folder} have different vocabularies: there is no KL "
                "between them"
            )
    return reference


def _reward(measures: Measures, machine: Machine) -> Any:
    """The reward, or the reward model, that was named; or None."""
    return reward_model_of(measures, machine.device) or measures.reward


def _prompts(source: PromptSource, template: str | None, count: int, seed: int) -> list[Prompt]:
    """At most `count` prompts: at even distances from a list, drawn from anything else."""
    if isinstance(source, ListPrompts):
        every = source.prompts
        places = np.linspace(0, len(every) - 1, min(count, len(every))).astype(int)
        asked = [every[place] for place in places]
    else:
        seeds = np.random.default_rng(seed).integers(2**64, size=count, dtype=np.uint64)
        asked = list(source.draw(seeds))
    if template is None:
        return asked
    return with_template(asked, load_function(template, "the template", "a prompt's text"))


def _stream(path: Path, policy: Policy) -> NDArray[np.integer]:
    """Held-out text as ids of the policy's vocabulary."""
    assert policy.tokenizer is not None
    if path.suffix == ".tokens":
        return open_stream(path, policy.tokenizer)
    ids = np.array(encode_prompt(policy.tokenizer, read_text(path)), dtype=np.int64)
    if len(ids) < 2:
        raise PromptError(f"{path} has {len(ids)} tokens: there is none to predict")
    return ids
