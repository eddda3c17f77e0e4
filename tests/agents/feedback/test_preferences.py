"""Rankings, their files, and what is made of them."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from letters import Letters

from agents.feedback import (
    Ranking,
    append_rankings,
    preference_rollout,
    rank,
    read_rankings,
    sample_answers,
)
from agents.preference_losses import ranked_pairs
from policies import TransformerConfig, TransformerPolicy, generate_tokens
from textenv.errors import (
    MalformedRecordError,
    PromptError,
    PromptTooLongError,
    RewardCountError,
    RewardRaisedError,
    RewardValueError,
    TokenizerError,
)
from textenv.tokenizers import SourceTokenizer

torch.set_num_threads(1)
HH = Path(__file__).parents[4] / "shared/data/hh-rlhf/harmless-base-test.jsonl.gz"


def letters_policy(**options):
    shape = TransformerConfig(4, context=8, n_layer=1, n_head=2, n_embd=8)
    return TransformerPolicy(shape, tokenizer=Letters(3, stop=True), seed=1, **options)


def test_pairs_are_the_better_and_the_worse():
    ranking = Ranking("p", ("a", "b", "c", "d"), (2, 1, 3, 3))
    assert ranking.pairs() == [("a", "c"), ("a", "d"), ("b", "a"), ("b", "c"), ("b", "d")]
    assert Ranking("p", ("a", "b"), (4, 4)).pairs() == []


def test_records_of_all_forms():
    three = {"prompt": "p", "answers": ["a", "b", "c"], "ranks": [2, 1, 2], "labeller": "me"}
    ranking = Ranking.from_record(three)
    assert ranking == Ranking("p", ("a", "b", "c"), (2, 1, 2))
    assert Ranking.from_record(ranking.to_record()) == ranking
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert Ranking.from_record(pair) == Ranking("p", ("a", "b"), (1, 2))


def test_dialogues_are_split_behind_the_last_answer_that_both_have():
    begin = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2 + 2?\n\nAssistant:"
    record = {"chosen": begin + " It is 4.", "rejected": begin + " It is 5."}
    assert Ranking.from_record(record) == Ranking(begin, (" It is 4.", " It is 5."), (1, 2))
    # Where they part earlier, what follows belongs to the answers.
    longer = begin + " What?\n\nHuman: The sum.\n\nAssistant: 5."
    record = {"chosen": begin + " 4.", "rejected": longer}
    assert Ranking.from_record(record).answers == (" 4.", longer.removeprefix(begin))
    # One that is the beginning of the other.
    record = {"chosen": begin + " 4.", "rejected": begin}
    assert Ranking.from_record(record) == Ranking(begin, (" 4.", ""), (1, 2))


@pytest.mark.skipif(not HH.exists(), reason="hh-rlhf is not beside the repository")
def test_the_real_dialogues():
    rankings = read_rankings(HH)
    with gzip.open(HH, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    assert len(rankings) == len(records)
    for ranking, record in zip(rankings, records, strict=True):
        better, worse = ranking.answers
        assert ranking.prompt.endswith("\n\nAssistant:")
        assert (ranking.prompt + better, ranking.prompt + worse) == (
            record["chosen"],
            record["rejected"],
        )


@pytest.mark.parametrize(
    "record, message",
    [
        ({"prompt": "p", "answers": ["a"], "ranks": [1]}, "not two or more texts"),
        ({"prompt": "p", "answers": ["a", 3], "ranks": [1, 2]}, "not two or more texts"),
        ({"prompt": "p", "answers": "ab", "ranks": [1, 2]}, "must be lists"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1, 0]}, "integers from 1"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [True, 2]}, "integers from 1"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1]}, "2 answers and 1 ranks"),
        ({"prompt": 3, "answers": ["a", "b"], "ranks": [1, 2]}, "3 is not a text"),
        ({"chosen": "a", "rejected": None}, "must be texts"),
        ({"chosen": "a", "rejected": "b"}, "no common beginning"),
        ({"prompt": "p", "chosen": "a"}, "neither"),
    ],
)
def test_records_that_are_no_rankings(record, message):
    with pytest.raises(ValueError, match=message):
        Ranking.from_record(record)


def test_a_file_reports_every_bad_line(tmp_path):
    path = tmp_path / "p.jsonl"
    good = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"})
    path.write_text(f'{good}\n{{"chosen": 1}}\n\n[]\n{good}\n{{"prompt": "p"\n')
    with pytest.raises(MalformedRecordError) as caught:
        read_rankings(path)
    named = [line.split(": ")[0] for line in str(caught.value).splitlines()[1:]]
    assert named == [f"{path}:{number}" for number in (2, 4, 6)]


def test_files_that_hold_nothing(tmp_path):
    with pytest.raises(PromptError, match="cannot be read"):
        read_rankings(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(PromptError, match="no ranking in"):
        read_rankings(tmp_path / "empty.jsonl")


def test_what_is_appended_is_read(tmp_path):
    path = tmp_path / "new" / "p.jsonl"
    first, second = Ranking("你好\n", ("a\u2028", "b"), (1, 1)), Ranking("q", ("c", "d"), (2, 1))
    append_rankings(path, [first])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as some editors do
    append_rankings(path, [second])
    assert read_rankings(path) == [first, second]


def test_answers_of_one_prompt_stand_together():
    policy = letters_policy()
    calls = []
    answers = sample_answers(
        policy, ["a", "bc"], 3, max_new_tokens=4, seed=5, on_answers=calls.append
    )
    assert [len(some) for some in answers] == [3, 3]
    assert calls == [1, 2, 3, 4, 5, 6]
    import numpy as np

    ids = generate_tokens(policy, [[0]] * 3 + [[1, 2]] * 3, 4, generator=np.random.default_rng(5))
    assert answers[0] + answers[1] == [policy.tokenizer.decode(i) for i in ids]
    assert answers == sample_answers(policy, ["a", "bc"], 3, max_new_tokens=4, seed=5)


def test_prompts_that_cannot_be_answered():
    policy = letters_policy()
    with pytest.raises(PromptTooLongError, match="1 of 2 prompts, such as 'aaaaaa'"):
        sample_answers(policy, ["a", "aaaaaa"], 2, max_new_tokens=4)
    policy.tokenizer = None
    with pytest.raises(TokenizerError):
        sample_answers(policy, ["a"], 2)


def test_ranks_are_those_of_the_scores():
    rankings = rank(lambda p, answers: map(len, answers), ["x", "y"], [["a", "bb"], ["c", "d"]])
    assert rankings == [Ranking("x", ("a", "bb"), (2, 1)), Ranking("y", ("c", "d"), (1, 1))]


@pytest.mark.parametrize(
    "labeller, error, message",
    [
        (lambda p, answers: [1.0], RewardCountError, "1 scores for 2 answers to 'x'"),
        (lambda p, answers: [1.0, float("nan")], RewardValueError, "nan"),
        (lambda p, answers: 1 / 0, RewardRaisedError, "ZeroDivisionError"),
        (lambda p, answers: ["good", "bad"], RewardRaisedError, "good"),
    ],
)
def test_labellers_that_go_wrong(labeller, error, message):
    with pytest.raises(error, match=message):
        rank(labeller, ["x"], [["a", "b"]])


def test_a_rollout_for_dpo_by_hand():
    tokenizer = Letters(3, stop=True)  # a, b, c and the stop token 3; padding is 4
    rankings = [Ranking("ab", ("c", ""), (1, 2)), Ranking("abcab", ("c", "aa"), (2, 1))]
    rollout = preference_rollout(rankings, tokenizer, context=6)
    assert rollout.tokens.tolist() == [
        [0, 1, 2, 3, 4, 4],
        [0, 1, 3, 4, 4, 4],
        [1, 2, 0, 1, 2, 3],  # its first token does not fit
        [2, 0, 1, 0, 0, 3],
    ]
    assert rollout.mask.int().tolist() == [
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1, 1],
    ]
    assert rollout.groups.tolist() == [0, 0, 1, 1]
    better, worse = ranked_pairs(rollout.scores, rollout.groups)
    assert sorted(zip(better.tolist(), worse.tolist(), strict=True)) == [(0, 1), (3, 2)]


def test_in_a_rollout_only_prompts_are_framed():
    tokenizer = SourceTokenizer(Letters(3, stop=True), before=[0])
    rollout = preference_rollout([Ranking("b", ("c", ""), (1, 2))], tokenizer, 9)
    assert rollout.tokens.tolist() == [[0, 1, 3, 2, 3], [0, 1, 3, 3, 4]]
    assert rollout.mask.int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 0]]


def test_a_rollout_never_chooses_the_first_token():
    rollout = preference_rollout([Ranking("", ("ab", "abcabc"), (1, 2))], Letters(3, True), 4)
    assert rollout.mask.int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 1]]
