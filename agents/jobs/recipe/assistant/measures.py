"""What the exam of conduct does not ask: whole dialogues, the likeliest answers, the best of n."""

from collections.abc import Sequence

from agents.evaluation import Conduct, Exam, Judged, ask, evaluate
from agents.jobs.recipe.assistant.pipeline import MOST_TURNS, AssistantRecipe
from agents.runs.samples import AGENT, Sample
from policies import RewardModel, TransformerPolicy
from textenv import Prompt, TextVectorEnv
from textenv.tasks import assistant
from textenv.tasks.assistant import AssistantWorld
from textenv.tokenizers import encode_answer


def likeliest(
    recipe: AssistantRecipe,
    policy: TransformerPolicy,
    exam: Exam,
    shots: int = 0,
    stop_strings: Sequence[str] = (),
) -> Conduct:
    """What answers are those of the likeliest tokens: no temperature makes these any surer."""
    said = ask(
        policy,
        recipe.template,
        exam.queries,
        shots=shots,
        stop_strings=stop_strings,
        max_new_tokens=recipe.settings.max_new_tokens,
        temperature=0.0,
    )
    return _judged(recipe, exam, [answer.text for answer in said])


def scores(model: RewardModel, exam: Exam, conduct: Conduct) -> float:
    """The reward model's mean score of the answers."""
    asked = [query.messages for query in exam.queries]
    return float(model.score_texts(asked, [judged.text for judged in conduct.answers]).mean())


def best_of(
    recipe: AssistantRecipe, policy: TransformerPolicy, exam: Exam, model: RewardModel
) -> Conduct:
    """What answers of n are those with the highest score of the reward model."""
    n, s = recipe.settings.best_of, recipe.settings
    asked = [query.messages for query in exam.queries]
    answers = recipe.answers(policy, asked, n, temperature=s.temperature, seed=s.seed)
    repeated = [messages for messages in asked for _ in range(n)]
    flat = model.score_texts(repeated, [text for some in answers for text in some])
    chosen = [some[i] for some, i in zip(answers, flat.reshape(-1, n).argmax(1), strict=True)]
    return _judged(recipe, exam, chosen)


def _judged(recipe: AssistantRecipe, exam: Exam, answers: Sequence[str]) -> Conduct:
    """What one answer to each question of the exam shows; nothing else was asked."""
    tokenizer = recipe.vocabulary()
    judged = [
        Judged(
            query.columns,
            text,
            len(encode_answer(tokenizer, text)) + 1,
            *exam.judge(query.columns, text),
        )
        for query, text in zip(exam.queries, answers, strict=True)
    ]
    return Conduct(judged, {}, [], [], [], None)


def in_dialogues(
    recipe: AssistantRecipe,
    policy: TransformerPolicy,
    talks: Sequence[assistant.Dialogue],
    reference: TransformerPolicy,
) -> tuple[list[float], list[list[tuple[str, str]]], float]:
    """Whole dialogues, in which the policy's own answers are what was said before.

    Returns:
        The share of each dialogue's questions that were answered well, who said what, and the KL
        of a token to the reference in nats.
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
    played = evaluate(
        policy,
        envs,
        [Prompt.from_row(record) for record in records],
        reference=reference,
        temperature=s.temperature,
        seed=s.seed,
    )
    pairs = list(zip(played.samples, talks, strict=True))
    shares = [sample.score / len(talk.exchanges) for sample, talk in pairs]
    return shares, [_said(sample, talk) for sample, talk in pairs], played.kl_per_token


def _said(sample: Sample, talk: assistant.Dialogue) -> list[tuple[str, str]]:
    """Questions and the policy's answers."""
    said = [text for who, text in sample.turns if who == AGENT] or [sample.text]
    asked = [exchange.question for exchange in talk.exchanges]
    return [(q, a.strip()) for q, a in zip(asked, said, strict=False)]
