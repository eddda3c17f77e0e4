import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from agents.evaluation import (
    Evaluation,
    answer_prompts,
    compare,
    compare_answers,
    comparison_table,
    evaluate,
    mean_interval,
    perplexity,
    table_cells,
)
from agents.evaluation.differences import Pairs, difference, fitted
from agents.runs.samples import Sample
from policies import TransformerConfig, TransformerPolicy
from textenv import ListPrompts, Prompt, TextVectorEnv, load_tokenizer
from textenv.frames import ChatTemplate
from textenv.rewards import per_text

TOKENIZER = load_tokenizer("bytes")
PROMPTS = [Prompt(f"prompt {n}") for n in range(6)]


class OtherBytes(type(TOKENIZER)):
    """The same ids under another name."""

    fingerprint = "other bytes"


def policy(seed: int) -> TransformerPolicy:
    config = TransformerConfig(TOKENIZER.vocab_size, 32, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(config, tokenizer=TOKENIZER, seed=seed)


def environment(of) -> TextVectorEnv:
    return TextVectorEnv(
        4,
        prompts=["unused"],
        reward=per_text(len),
        tokenizer=of.tokenizer,
        max_new_tokens=6,
        max_prompt_tokens=16,
    )


def evaluation(scores, texts, ref=math.nan) -> Evaluation:
    samples = [Sample("p", text, score) for score, text in zip(scores, texts, strict=True)]
    answers = [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) for text in texts]
    count = len(samples)
    return Evaluation(samples, answers, np.full(count, -1.0), np.full(count, ref))


def test_rows_by_hand():
    rows = compare_answers(
        {
            "base": evaluation([0, 0, 0, 0], ["aa", "ab", "a", "a"], ref=-1.5),
            "sft": evaluation([1, 2, 3, -1], ["aaa", "a", "a", "aaaa"]),
        },
        judge=lambda prompt, answer: len(answer),
        classifier=lambda texts: [float("b" in text) for text in texts],
        perplexities={"sft": 9.0},
    )
    base, sft = rows
    assert (base.name, sft.name) == ("base", "sft")
    assert base.reward.mean == 0 and sft.reward.mean == 1.25
    assert base.judge.mean == 1.5 and sft.judge.mean == 2.25
    assert sft.wins["base"].mean == pytest.approx((1 + 0 + 0.5 + 1) / 4)  # as the judge says
    assert base.wins["sft"].mean == pytest.approx(1 - sft.wins["base"].mean)
    assert base.kl.mean == 0.5 and sft.kl is None
    assert base.toxicity.mean == 0.25 and sft.toxicity.mean == 0
    assert base.perplexity is None and sft.perplexity == 9
    assert base.tokens_per_answer == 1.5
    assert base.distinct_2 == 1 and sft.distinct_2 == pytest.approx(1 / 5)


def test_without_a_judge_the_reward_decides():
    row, _ = compare_answers({"a": evaluation([1, 1], "xy"), "b": evaluation([0, 2], "xy")})
    assert row.wins["b"].mean == 0.5 and row.judge is None


def test_the_same_number_of_answers_is_needed():
    with pytest.raises(ValueError, match="same prompts"):
        compare_answers({"a": evaluation([1], "x"), "b": evaluation([1, 1], "xy")})
    with pytest.raises(ValueError, match="same prompts"):
        compare_answers({})


def test_policies_get_the_same_prompts_and_the_same_seed():
    one, other = policy(0), policy(1)
    counts = []
    rows = compare(
        {"one": one, "twin": policy(0), "other": other},
        environment,
        PROMPTS,
        reference=one,
        stream=lambda of: np.arange(100),
        seed=3,
        on_answers=counts.append,
    )
    assert counts == [4, 6, 10, 12, 16, 18]
    by_name = {row.name: row for row in rows}
    assert by_name["one"].kl == (0, 0, 0)
    assert by_name["twin"].wins["one"] == (0.5, 0.5, 0.5)  # the very same answers
    assert by_name["one"].reward == by_name["twin"].reward
    assert by_name["other"].perplexity == perplexity(other, np.arange(100))
    alone = evaluate(other, environment(other), PROMPTS, reference=one, seed=3)
    assert by_name["other"].reward.mean == pytest.approx(alone.scores.mean())
    assert by_name["other"].kl.mean == pytest.approx(alone.kl_per_answer)


def test_the_gain_over_the_first_row_is_that_of_answers_which_both_have_read():
    one, other = policy(0), policy(0)
    with torch.no_grad():
        other.transformer.token_embedding.weight.add_(
            0.05 * torch.randn(TOKENIZER.vocab_size, 16, generator=torch.Generator().manual_seed(0))
        )
    asked = [Prompt(f"prompt {n}") for n in range(40)]
    first, second = compare({"one": one, "other": other}, environment, asked, seed=3)
    assert first.gain is None and first.name == "one"
    a = evaluate(one, environment(one), asked, reference=other, seed=3)
    b = evaluate(other, environment(other), asked, reference=one, seed=3)
    ratios = a.ref_logprobs - a.logprobs, b.logprobs - b.ref_logprobs
    pairs = Pairs(a.scores, b.scores, *ratios)
    assert second.gain == pytest.approx(mean_interval(fitted(pairs)))
    plain = mean_interval(difference(pairs))
    assert second.gain.high - second.gain.low < plain.high - plain.low
    table = table_cells([first, second])
    assert table[1][1][table[0].index("above one")] == str(second.gain)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_the_gain_of_greedy_answers_and_of_other_vocabularies_is_the_plain_difference(temperature):
    one, other = policy(0), policy(1)
    if temperature:
        other.tokenizer = OtherBytes()
    _, second = compare({"one": one, "other": other}, environment, PROMPTS, temperature=temperature)
    answers = [
        evaluate(of, environment(of), PROMPTS, temperature=temperature) for of in (one, other)
    ]
    assert second.gain == mean_interval(answers[1].scores - answers[0].scores)


@pytest.mark.parametrize(
    "other_rules",
    [
        {"stop_tokens": [10, TOKENIZER.stop_token]},
        {"max_new_tokens": 4},
        {"frame": ChatTemplate(user="U: {content}\n")},
    ],
    ids=["stop tokens", "budget", "frame"],
)
def test_the_gain_of_answers_under_other_rules_is_the_plain_difference(other_rules):
    rules = {"max_new_tokens": 6, "frame": ChatTemplate(), "stop_tokens": [TOKENIZER.stop_token]}

    def made(of):
        own = rules if of is one else {**rules, **other_rules}
        return TextVectorEnv(
            4,
            prompts=asked,
            reward=per_text(lambda text: sum(map(ord, text))),
            max_prompt_tokens=26,
            **own,
        )

    one, other = policy(0), policy(1)
    asked = ListPrompts([{"prompt": [{"role": "user", "content": str(n)}]} for n in range(12)])
    _, second = compare({"one": one, "other": other}, made, asked.prompts)
    answers = [evaluate(of, made(of), asked.prompts) for of in (one, other)]
    assert second.gain == mean_interval(answers[1].scores - answers[0].scores)


def test_answers_that_are_not_samples_are_not_read_by_others():
    def greedy(of, envs, prompts, *, temperature, generators):
        return answer_prompts(of, envs, prompts, temperature=0, generators=generators)

    for answer, read in ((None, [{"other"}, {"one"}]), ({"": greedy}, [set(), set()])):
        found = {}
        policies = {"one": policy(0), "other": policy(1)}
        compare(policies, environment, PROMPTS, answer=answer, on_batch=found.__setitem__)
        assert [set(found[name].read_by) for name in policies] == read


def test_the_table_leaves_out_what_nobody_has():
    plain = compare_answers({"a": evaluation([1, 3], "xy"), "b": evaluation([0, 0], "xy")})
    headings, cells = table_cells(plain)
    assert headings[:3] == ["", "reward", "wins against a"]
    assert not {"judge", "perplexity", "toxicity"} & set(headings)
    assert cells[0][:3] == ["a", "2.000 [1.000, 3.000]", ""]
    assert cells[1][:3] == ["b", "0.000 [0.000, 0.000]", "0.000 [0.000, 0.000]"]
    shown = io.StringIO()
    Console(file=shown, width=200).print(comparison_table(plain, "both"))
    assert "2.000 [1.000, 3.000]" in shown.getvalue()


def test_numbers_are_json():
    rows = compare_answers({"a": evaluation([1, 3], "xy", -2.0), "b": evaluation([0, 0], "xy")})
    back = json.loads(json.dumps([row.numbers() for row in rows]))
    assert back[0]["reward"] == {"mean": 2, "low": 1, "high": 3}
    assert back[0]["wins"]["b"]["mean"] == 1
    assert back[0]["kl"]["mean"] == 1 and back[1]["kl"] is None


def test_wins_at_equal_length_take_off_what_length_adds():
    """A judge of length alone: the longer side always wins, and neither would at equal length."""
    rng = np.random.default_rng(0)
    texts = {name: ["x" * n for n in rng.integers(5, 25, 200) + more] for name, more in LONGER}
    rows = compare_answers(
        {name: evaluation([0.0] * 200, some) for name, some in texts.items()},
        judge=lambda prompt, answer: len(answer) + rng.normal(0, 8),
    )
    long = rows[1]
    assert long.wins["short"].low > 0.6
    controlled = long.wins_at_equal_length["short"]
    assert controlled.low < 0.5 < controlled.high
    assert long.numbers()["wins_at_equal_length"]["short"] == controlled._asdict()
    assert "scores" not in long.numbers() and len(long.scores) == 200


LONGER = (("short", 0), ("long", 8))


def test_refusals_of_each_row():
    texts = ["I can't do that.", "ok", "I can't do that.", "ok"]
    (row,) = compare_answers(
        {"one": evaluation([0.0] * 4, texts)}, refusal_due=[True, True, False, False]
    )
    assert row.refused_when_due.mean == row.refused_otherwise.mean == 0.5
    (plain,) = compare_answers({"one": evaluation([0.0] * 4, texts)})
    assert plain.refused_when_due is None
    headings, _ = table_cells([row])
    assert "refused when due" in headings and "refused when due" not in table_cells([plain])[0]


def test_ways_to_put_the_prompts_are_rows():
    ways = {"plain": PROMPTS, "loud": [Prompt(p.text.upper()) for p in PROMPTS]}
    seen = []
    rows = compare(
        {"one": policy(0), "two": policy(1)},
        environment,
        ways,
        stream=lambda of: np.arange(20),
        on_answers=seen.append,
    )
    assert [row.name for row in rows] == ["one, plain", "one, loud", "two, plain", "two, loud"]
    assert seen == sorted(seen) and seen[-1] == 4 * len(PROMPTS)
    assert rows[0].perplexity == rows[1].perplexity != rows[2].perplexity
    (alone,) = compare({"one": policy(0)}, environment, PROMPTS)
    assert alone.reward == rows[0].reward
