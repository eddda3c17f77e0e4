"""The forms in which people publish preferences, all as one: answers with ranks or scores.

See the table of docs/data.md. A record is read by the first form whose names it has.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from textenv.records.conversations import (
    Message,
    conversation,
    human_assistant,
    messages_of,
    rank_in_tree,
    replies_in_tree,
    text_of,
    with_system,
)
from textenv.records.problems import short

ANSWER_MARK = "\n\nAssistant:"
"""The text before every answer in a dialogue of hh-rlhf."""

Normal = dict[str, Any]
"""`prompt` (a text or messages), `answers`, `ranks` or `scores`; perhaps `sources`, `labeller` and
`criteria`."""


def ranking(record: Mapping[str, Any]) -> Normal:
    """What a record prefers to what.

    Returns:
        `prompt`, a text or messages; `answers`; `ranks` from 1, or `scores` of which more is
        better; `sources`, `labeller` and `criteria` where the record has them.

    Raises:
        ValueError: The record has none of the forms, or something else is in its place.
    """
    for names, read in _FORMS:
        if names <= record.keys():
            return _behind_system(record, read(record))
    raise ValueError(
        "the record has neither 'prompt', 'answers' and 'ranks' (or 'scores') nor 'chosen' and "
        f"'rejected', nor another form of preferences; its keys are {short(list(record))}"
    )


def _behind_system(record: Mapping[str, Any], made: Normal) -> Normal:
    """With a system message in a column of its own, a prompt that is a text becomes messages."""
    asked = made["prompt"]
    if isinstance(asked, str):
        before = human_assistant(asked) or [{"role": "user", "content": asked}]
        said = with_system(record, before)
        return {**made, "prompt": asked if said is before else said}
    return {**made, "prompt": with_system(record, asked)} if isinstance(asked, list) else made


# -------------------------------------------------------------------- lists of answers


def _ranked(record: Mapping[str, Any]) -> Normal:
    """Our own form, and lists of objects with a rank or a score each."""
    answers = _list(record, "answers")
    made: Normal = {"prompt": _prompt(record), "answers": answers}
    if "ranks" in record:
        made["ranks"] = _list(record, "ranks")
    elif "scores" in record:
        made["scores"] = _list(record, "scores")
    else:
        made |= _of_objects(answers)
    if record.get("sources") is not None:
        made["sources"] = _list(record, "sources")
    for name in ("labeller", "criteria"):
        if record.get(name) is not None:
            made[name] = record[name]
    return made


def _of_objects(answers: Sequence[Any]) -> Normal:
    texts = ("answer", "text", "response", "content")
    made: Normal = {"answers": [_one(answer, texts, "text") for answer in answers]}
    for name, kinds in (
        ("ranks", ("rank",)),
        ("scores", ("score", "pm_score")),
        ("sources", ("model", "source", "policy")),
    ):
        given = [next((a[k] for k in kinds if a.get(k) is not None), None) for a in answers]
        if all(value is not None for value in given):
            made[name] = given
    if "ranks" in made:
        made.pop("scores", None)
        made["ranks"] = [
            int(r) if isinstance(r, float) and r % 1 == 0 else r for r in made["ranks"]
        ]
    elif "scores" not in made:
        raise ValueError("the answers have neither a 'rank' nor a 'score' each")
    return made


def _ultrafeedback(record: Mapping[str, Any]) -> Normal:
    """UltraFeedback: completions with a score for each of several criteria."""
    completions = _list(record, "completions")
    made: Normal = {
        "prompt": text_of(record, "instruction"),
        "answers": [_one(c, ("response",), "response") for c in completions],
    }
    # Its overall_score has known errors: the mean of the criteria is what its cleaned form takes.
    for name in ("fine-grained_score", "overall_score"):
        if all(c.get(name) is not None for c in completions):
            made["scores"] = [c[name] for c in completions]
            break
    else:
        raise ValueError("the completions have neither 'fine-grained_score' nor 'overall_score'")
    if all(isinstance(c.get("model"), str) for c in completions):
        made["sources"] = [c["model"] for c in completions]
    noted = [
        c["annotations"] if isinstance(c.get("annotations"), Mapping) else {} for c in completions
    ]
    names = [name for name in noted[0] if all(name in one for one in noted)] if noted else []
    made["criteria"] = {name: [_rating(one[name]) for one in noted] for name in names}
    return made


def _rating(note: Any) -> float | None:
    """A rating, which may be "N/A"."""
    value: Any = note.get("Rating") if isinstance(note, Mapping) else note
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _summaries(record: Mapping[str, Any]) -> Normal:
    """OpenAI's comparisons of summaries: `summaries`, and the number of the better one."""
    answers, choice = _list(record, "summaries"), record["choice"]
    if type(choice) is not int or not 0 <= choice < len(answers):
        raise ValueError(f"'choice' is {short(choice)}, not the number of a summary")
    info = record.get("info")
    asked = (info.get("post") or info.get("article")) if isinstance(info, Mapping) else None
    if not isinstance(asked, str):
        raise ValueError(f"'info' is {short(info)}: it has no 'post' or 'article' to summarise")
    scores = [float(number == choice) for number in range(len(answers))]
    made: Normal = {
        "prompt": asked,
        "answers": [_one(answer, ("text",), "text") for answer in answers],
        "scores": scores,
    }
    if all(isinstance(answer.get("policy"), str) for answer in answers):
        made["sources"] = [answer["policy"] for answer in answers]
    if isinstance(record.get("worker"), str):
        made["labeller"] = record["worker"]
    return made


def _tree(record: Mapping[str, Any]) -> Normal:
    """A tree of OpenAssistant: the ranked replies to the prompt at its root."""
    root = record["prompt"]
    if not isinstance(root, Mapping):
        raise ValueError(f"'prompt' is {short(root)}, not the root of a tree")
    replies = [reply for reply in replies_in_tree(root) if rank_in_tree(reply) < float("inf")]
    return {
        "prompt": [{"role": "user", "content": text_of(root, "text")}],
        "answers": [_one(reply, ("text",), "text") for reply in replies],
        "ranks": [int(rank_in_tree(reply)) + 1 for reply in replies],
    }


# -------------------------------------------------------------------- pairs


def _pair(record: Mapping[str, Any]) -> Normal:
    """`chosen` and `rejected`: texts behind a prompt, whole dialogues as texts, or messages."""
    chosen, rejected = record["chosen"], record["rejected"]
    prompt = record.get("prompt", record.get("conversations", record.get("messages")))
    if isinstance(chosen, Mapping) and isinstance(rejected, Mapping):
        chosen, rejected = [chosen], [rejected]
    made: Normal = {"ranks": [1, 2]}
    if isinstance(chosen, list | tuple) and isinstance(rejected, list | tuple):
        prompt, *answers = _split_messages(prompt, chosen, rejected)
    elif isinstance(chosen, str) and isinstance(rejected, str):
        asked = any(name in record for name in ("prompt", "question", "instruction", "input"))
        if asked:
            prompt, answers = _prompt(record), [chosen, rejected]
        else:
            prompt, *answers = _split_dialogues(chosen, rejected)
    else:
        raise ValueError(
            f"'chosen' is {short(chosen)} and 'rejected' is {short(rejected)}; both must be texts, "
            "or both lists of messages"
        )
    made |= {"prompt": prompt, "answers": answers}
    sources = [record.get(f"{side}_model") for side in ("chosen", "rejected")]
    if all(isinstance(source, str) for source in sources):
        made["sources"] = sources
    return made


def _split_messages(
    prompt: Any, chosen: Sequence[Any], rejected: Sequence[Any]
) -> tuple[list[Message], str, str]:
    """TRL's conversational pairs: the prompt by itself, or as what both sides begin with."""
    sides = [messages_of(chosen, "chosen"), messages_of(rejected, "rejected")]
    count = 0
    # All but the last: an answer that both sides share is still an answer.
    while count < min(map(len, sides)) - 1 and sides[0][count] == sides[1][count]:
        count += 1
    asked, rest = sides[0][:count], [side[count:] for side in sides]
    if isinstance(prompt, list | tuple):
        before = messages_of(prompt, "prompt")
        asked = asked if asked[: len(before)] == before else before + asked
    elif isinstance(prompt, str) and not asked:
        asked = [{"role": "user", "content": prompt}]
    answers = [side[0] for side in rest]
    if not asked or any(a["role"] != "assistant" for a in answers):
        raise ValueError(
            "'chosen' and 'rejected' are not answers of the assistant to the same messages"
        )
    if any(len(side) > 1 for side in rest):
        raise ValueError(
            "'chosen' and 'rejected' part before the last answer: a ranking compares single answers"
        )
    return asked, answers[0]["content"], answers[1]["content"]


def _split_dialogues(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Dialogues of hh-rlhf, behind the last "Assistant:" that both have in common."""
    different = (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    common = chosen[: next(different, min(len(chosen), len(rejected)))]
    end = common.rfind(ANSWER_MARK) + len(ANSWER_MARK)
    if end < len(ANSWER_MARK):
        raise ValueError(
            f"the dialogues {short(chosen)} and {short(rejected)} have no common beginning that "
            f"ends in {ANSWER_MARK!r}; give the 'prompt' by itself"
        )
    return chosen[:end], chosen[end:], rejected[end:]


def _numbered_answers(
    names: tuple[str, str], better: Callable[[Mapping[str, Any]], float]
) -> Callable[[Mapping[str, Any]], Normal]:
    """Two answers in columns of their own.

    Args:
        names: Their columns.
        better: From a record, by how much the first is better; 0 is a tie.
    """

    def read(record: Mapping[str, Any]) -> Normal:
        answers = [text_of(record, name) for name in names]
        first = better(record)
        return {"prompt": _prompt(record), "answers": answers, "scores": [first, -first]}

    return read


def _difference(one: str, other: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda record: _number(record, one) - _number(record, other)


def _by_label(record: Mapping[str, Any]) -> float:
    """SHP: a label of 1 prefers answer A, 0 answer B."""
    return 2 * _number(record, "labels") - 1


def _by_number(record: Mapping[str, Any]) -> float:
    """SafeRLHF: the number of the better answer."""
    return 1 - 2 * _number(record, "better_response_id")


def _arena(record: Mapping[str, Any]) -> Normal:
    """Chatbot Arena: the conversations of two models, and which a person preferred."""
    sides = [messages_of(record[f"conversation_{side}"], "conversation") for side in "ab"]
    if sides[0][:-1] != sides[1][:-1] or any(s[-1]["role"] != "assistant" for s in sides):
        raise ValueError("the two conversations are not answers to the same messages")
    winner = record["winner"]
    if winner not in ("model_a", "model_b") and not str(winner).startswith("tie"):
        raise ValueError(f"'winner' is {short(winner)}, not model_a, model_b or tie")
    made: Normal = {
        "prompt": sides[0][:-1],
        "answers": [side[-1]["content"] for side in sides],
        "scores": [float(winner == "model_a"), float(winner == "model_b")],
        "sources": [text_of(record, "model_a"), text_of(record, "model_b")],
    }
    if isinstance(record.get("judge"), str):
        made["labeller"] = record["judge"]
    return made


# -------------------------------------------------------------------- parts


def _prompt(record: Mapping[str, Any]) -> Any:
    """What was asked: a text, or messages if the record has them."""
    given = record.get("prompt")
    if isinstance(given, list | tuple):
        return messages_of(given, "prompt")
    if given is not None:
        return given
    if isinstance(record.get("context"), list | tuple):
        return messages_of(record["context"], "context")
    question = record.get("question")
    if isinstance(question, Mapping):  # WebGPT
        return text_of(question, "full_text")
    asked = next((n for n in ("question", "instruction", "input", "history") if n in record), None)
    if asked is None:
        raise ValueError(f"the record has no 'prompt'; its keys are {short(list(record))}")
    # The answer is none of these: only what is asked is read, in the form that examples have.
    about = {n: record[n] for n in (asked, "input", "context") if n in record}
    if asked == "input":
        about = {"instruction": about.pop("input"), **about}
    elif asked == "history":
        about = {"instruction": about.pop("history")}
    said = conversation({**about, "answer": ""}) or []
    return said[0]["content"] if len(said) == 2 else said[:-1]


def _one(answer: Any, names: Sequence[str], usual: str) -> str:
    if not isinstance(answer, Mapping):
        raise ValueError(f"the answer {short(answer)} is no object with a {usual!r}")
    return text_of(answer, next((name for name in names if name in answer), usual))


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record[name]
    if not isinstance(value, list | tuple):
        raise ValueError("'answers' and 'ranks' must be lists: " + f"{name!r} is {short(value)}")
    return list(value)


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{name!r} is {short(value)}, not a number")
    return float(value)


_FORMS: tuple[tuple[set[str], Callable[[Mapping[str, Any]], Normal]], ...] = (
    ({"answers"}, _ranked),
    ({"chosen", "rejected"}, _pair),
    ({"instruction", "completions"}, _ultrafeedback),
    ({"summaries", "choice"}, _summaries),
    ({"conversation_a", "conversation_b", "winner"}, _arena),
    # WebGPT, SHP, SafeRLHF, HelpSteer2 and HelpSteer3: less than 0 prefers the first answer.
    (
        {"answer_0", "answer_1", "score_0", "score_1"},
        _numbered_answers(("answer_0", "answer_1"), _difference("score_0", "score_1")),
    ),
    (
        {"human_ref_A", "human_ref_B", "labels"},
        _numbered_answers(("human_ref_A", "human_ref_B"), _by_label),
    ),
    (
        {"response_0", "response_1", "better_response_id"},
        _numbered_answers(("response_0", "response_1"), _by_number),
    ),
    (
        {"response_1", "response_2", "preference_strength"},
        _numbered_answers(
            ("response_1", "response_2"), lambda r: -_number(r, "preference_strength")
        ),
    ),
    (
        {"response1", "response2", "overall_preference"},
        _numbered_answers(("response1", "response2"), lambda r: -_number(r, "overall_preference")),
    ),
    ({"message_tree_id", "prompt"}, _tree),
)
