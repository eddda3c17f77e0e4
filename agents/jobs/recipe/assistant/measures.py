"""What a policy of the recipe says to held-out questions, and what the program says of that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.evaluation import bootstrap_interval, evaluate
from agents.jobs.recipe.assistant.dialogues import prompts_of
from agents.jobs.recipe.assistant.pipeline import DEMONSTRATED, MOST_TURNS, AssistantRecipe
from agents.runs.samples import AGENT, Sample
from policies import RewardModel, TransformerPolicy
from textenv import Prompt, TextVectorEnv
from textenv.tasks import assistant
from textenv.tasks.assistant import AssistantWorld, Verdict
from textenv.tokenizers import encode_answer

SHOTS = 3
"""Examples that are shown to the base model."""


@dataclass(frozen=True)
class Answered:
    """Answers to n held-out questions, one for each.

    Attributes:
        texts: At the recipe's temperature.
        tokens: Mean length of these.
        scores: What the reward model says of them, shape (n,).
        greedy: The likeliest answers; None for best-of-n.
        kl: KL of an answer to the SFT model; None where it is not asked.
    """

    texts: Sequence[str]
    tokens: float
    scores: NDArray[np.float64]
    greedy: Sequence[str] | None = None
    kl: float | None = None


def answered(
    recipe: AssistantRecipe,
    policy: TransformerPolicy,
    prompts: Sequence[Prompt],
    model: RewardModel,
    reference: TransformerPolicy | None,
) -> Answered:
    """What `policy` answers, the references being what was said before."""
    s = recipe.settings
    envs = TextVectorEnv(
        s.ppo_rows,
        prompts=list(prompts),
        reward=model,
        frame=recipe.template,
        tokenizer=policy.tokenizer,
        max_new_tokens=s.max_new_tokens,
        max_prompt_tokens=s.context - s.max_new_tokens,
    )
    said = evaluate(
        policy, envs, prompts, reference=reference, temperature=s.temperature, seed=s.seed
    )
    greedy = recipe.answers(policy, prompts, temperature=0.0, seed=s.seed)
    return Answered(
        [sample.text for sample in said.samples],
        said.tokens_per_answer,
        said.scores,
        [one for (one,) in greedy],
        None if reference is None else said.kl_per_answer,
    )


def best_of(
    recipe: AssistantRecipe,
    policy: TransformerPolicy,
    prompts: Sequence[Prompt],
    model: RewardModel,
) -> Answered:
    """The answer of n with the highest score of the reward model."""
    n, tokenizer = recipe.settings.best_of, recipe.vocabulary()
    answers = recipe.answers(
        policy, prompts, n, temperature=recipe.settings.temperature, seed=recipe.settings.seed
    )
    asked = [prompt.messages or () for prompt in prompts for _ in range(n)]
    scores = model.score_texts(asked, [text for some in answers for text in some]).reshape(-1, n)
    texts = [some[i] for some, i in zip(answers, scores.argmax(1), strict=True)]
    lengths = [len(encode_answer(tokenizer, text)) + 1 for text in texts]
    return Answered(texts, float(np.mean(lengths)), scores.max(1))


def with_examples(recipe: AssistantRecipe, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts behind questions of their kind with answers: what a base model is prompted with.

    They stand as earlier turns of the conversation, as many as fit the context. A question of a
    kind that training has not stands behind questions of other kinds.
    """
    s, tokenizer = recipe.settings, recipe.vocabulary()
    room = s.context - s.max_new_tokens
    known: dict[str, list[list[dict[str, str]]]] = {}
    for talk in recipe.talks(DEMONSTRATED, 1000):
        known.setdefault(talk.kind, []).append(talk.record()["messages"])
    everything = [messages for some in known.values() for messages in some]
    rng, shown = np.random.default_rng(s.seed), []
    for prompt in prompts:
        assert prompt.messages is not None
        some = known.get(prompt.columns["kind"], everything)
        messages = [*prompt.messages]
        for place in rng.choice(len(some), SHOTS, replace=False):
            longer = [*some[place], *messages]
            if len(recipe.template.prompt_tokens(longer, tokenizer)) <= room:
                messages = longer
        shown.append(replace(prompt, text="", messages=messages))
    return shown


def verdicts(
    prompts: Sequence[Prompt], texts: Sequence[str]
) -> tuple[list[Verdict], NDArray[np.float64]]:
    """What each text does, and 1 where it is the answer that is due."""
    checks = [prompt.columns["check"] for prompt in prompts]
    pairs = list(zip(checks, texts, strict=True))
    return (
        [assistant.verdict(check, text) for check, text in pairs],
        np.array([float(assistant.correct(check, text)) for check, text in pairs]),
    )


def row(prompts: Sequence[Prompt], some: Answered, held_out: NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of one stage, for JSON.

    Args:
        prompts: The questions.
        some: What it said.
        held_out: Which questions are of kinds that training had.
    """
    does, correct = verdicts(prompts, some.texts)
    due = np.array([prompt.columns["check"]["due"] == "answer" for prompt in prompts])
    declined = np.array([one is Verdict.DECLINED for one in does])
    kinds = np.array([prompt.columns["kind"] for prompt in prompts])
    greedy = None if some.greedy is None else verdicts(prompts, some.greedy)[1]
    return {
        "success": bootstrap_interval(correct[held_out])._asdict(),
        "greedy": None if greedy is None else bootstrap_interval(greedy[held_out])._asdict(),
        "held_out_kinds": bootstrap_interval(correct[~held_out])._asdict(),
        "by_kind": {kind: float(correct[kinds == kind].mean()) for kind in np.unique(kinds)},
        "answerable": {
            "right": float(correct[held_out & due].mean()),
            "declined": float(declined[held_out & due].mean()),
        },
        "to_decline": {
            "declined": float(declined[held_out & ~due].mean()),
            "right": float(correct[held_out & ~due].mean()),
        },
        "reward_model": float(some.scores.mean()),
        "kl": some.kl,
        "tokens": some.tokens,
    }


def in_dialogues(
    recipe: AssistantRecipe, policy: TransformerPolicy, talks: Sequence[assistant.Dialogue]
) -> tuple[list[float], list[list[tuple[str, str]]]]:
    """Whole dialogues, in which the policy's own answers are what was said before.

    Returns:
        The share of each dialogue's questions that were answered well, and who said what.
    """
    s = recipe.settings
    records = [assistant.world_record(talk) for talk in talks]
    envs = TextVectorEnv(
        s.ppo_rows,
        prompts=records,
        world=AssistantWorld,
        frame=recipe.template,
        tokenizer=policy.tokenizer,
        max_turns=MOST_TURNS,
        max_turn_tokens=s.max_new_tokens,
        max_new_tokens=s.conversation_tokens,
        max_prompt_tokens=s.context - s.conversation_tokens,
    )
    prompts = [Prompt.from_row(record) for record in records]
    played = evaluate(policy, envs, prompts, temperature=s.temperature, seed=s.seed)
    shares = [
        sample.score / len(talk.exchanges)
        for sample, talk in zip(played.samples, talks, strict=True)
    ]
    return shares, [_said(sample, talk) for sample, talk in zip(played.samples, talks, strict=True)]


def _said(sample: Sample, talk: assistant.Dialogue) -> list[tuple[str, str]]:
    """Questions and the policy's answers."""
    said = [text for who, text in sample.turns if who == AGENT] or [sample.text]
    asked = [exchange.question for exchange in talk.exchanges]
    return [(q, a.strip()) for q, a in zip(asked, said, strict=False)]


def history_gain(
    recipe: AssistantRecipe, policy: TransformerPolicy, talks: Sequence[assistant.Dialogue]
) -> dict[str, Any]:
    """How much what was said before helps with later questions: answers with it and without."""
    prompts = [prompt for prompt in prompts_of(talks) if prompt.columns["number"] > 1]
    alone = [replace(p, text="", messages=p.messages[-1:]) for p in prompts if p.messages]
    found = []
    for some in (prompts, alone):
        answers = recipe.answers(policy, some, temperature=recipe.settings.temperature, seed=0)
        found.append(verdicts(prompts, [one for (one,) in answers])[1])
    return {
        "with": bootstrap_interval(found[0])._asdict(),
        "without": bootstrap_interval(found[1])._asdict(),
        "gain": bootstrap_interval(found[0] - found[1])._asdict(),
    }
