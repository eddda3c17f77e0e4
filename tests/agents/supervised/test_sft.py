import gzip
import json
import math

import pytest
import torch

from agents.supervised import (
    Example,
    answer_loss,
    read_examples,
    sft_steps,
    whole_loss,
    with_language_modelling,
)
from agents.supervised.sft import held_out_answer_loss, pad
from policies import TransformerConfig, TransformerPolicy
from textenv.errors import MalformedRecordError
from textenv.tokenizers import BytesTokenizer

STOP = 256


def small_policy(context: int = 32, seed: int = 0) -> TransformerPolicy:
    shape = TransformerConfig(257, context, 1, 2, 16)
    return TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=seed)


def batch_of(policy, *examples):
    return pad([e.encode(policy.tokenizer, policy.context) for e in examples], policy)


ONE = Example((("ab", False), ("cd", True)))
TWO = Example((("a", False), ("xyz", True), ("b", False), ("c", True)))


def test_the_three_forms_of_a_record():
    plain = {"prompt": "Q", "response": "A"}
    alpaca = {"instruction": "Q", "input": "", "output": "A"}
    messages = {
        "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    }
    assert Example.from_record(plain).pieces == (("Q", False), ("A", True))
    expected = (("User: Q\nAssistant:", False), (" A", True))
    assert Example.from_record(alpaca).pieces == expected
    assert Example.from_record(messages).pieces == expected


def test_answers_are_learned_with_their_stop_token_by_hand():
    ids, learned = TWO.encode(BytesTokenizer(), 32)
    assert ids == [*b"axyz", STOP, *b"bc", STOP]
    assert learned == [False, True, True, True, True, False, True, True]


def test_the_loss_is_the_mean_log_probability_of_the_answers_alone():
    policy = small_policy()
    tokens, learned, lengths = batch_of(policy, ONE, TWO)
    logprobs = policy.outputs(tokens, learned).logprobs
    assert answer_loss(policy, tokens, learned, lengths).item() == pytest.approx(
        -logprobs.sum().item() / 9, abs=1e-5
    )


def test_the_whole_loss_counts_questions_and_the_auxiliary_term_adds_it():
    policy = small_policy()
    tokens, learned, lengths = batch_of(policy, ONE, TWO)
    everything = torch.zeros_like(learned)
    everything[0, 1:5] = everything[1, 1:8] = True
    whole = -policy.outputs(tokens, everything).logprobs.sum().item() / 11
    assert whole_loss(policy, tokens, learned, lengths).item() == pytest.approx(whole, abs=1e-5)
    both = with_language_modelling(0.5)(policy, tokens, learned, lengths).item()
    answers = answer_loss(policy, tokens, learned, lengths).item()
    assert both == pytest.approx(answers + 0.5 * whole, abs=1e-5)


def test_no_example_sees_another_and_padding_does_not_matter():
    policy = small_policy()
    alone = [answer_loss(policy, *batch_of(policy, e)).item() for e in (ONE, TWO)]
    tokens, learned, lengths = batch_of(policy, ONE, TWO)
    together = answer_loss(policy, tokens, learned, lengths).item()
    assert together == pytest.approx((3 * alone[0] + 6 * alone[1]) / 9, abs=1e-5)
    tokens[0, 5:] = 7
    assert answer_loss(policy, tokens, learned, lengths).item() == pytest.approx(together, abs=1e-6)


def test_a_policy_learns_to_answer_and_to_stop():
    policy = small_policy()
    examples = [Example(((f"{x}=", False), (x, True))) for x in ("one", "two", "six")]
    steps = list(sft_steps(policy, examples, epochs=80, batch_size=3, learning_rate=1e-2))
    assert [step.number for step in steps] == list(range(1, 81))
    assert steps[-1].loss < 0.1 < steps[0].loss
    assert policy.generate(["two=", "six="], 8, temperature=0) == ["two", "six"]


def test_questions_are_not_learned():
    policy = small_policy()
    examples = [Example((("zzzzzz", False), ("a", True)))]
    for _ in sft_steps(policy, examples, epochs=60, learning_rate=1e-2):
        pass
    tokens = torch.tensor([[*b"zz"]])
    outputs = policy.outputs(tokens, torch.tensor([[False, True]]))
    assert outputs.logprobs[0, 1].exp() < 0.1


def test_examples_longer_than_the_context_are_cut_at_the_end():
    policy = small_policy(context=4)
    long = Example((("abcd", False), ("efgh", True)))
    assert long.encode(policy.tokenizer, 4) == ([*b"abcde"], [False] * 4 + [True])
    assert len(list(sft_steps(policy, [long]))) == 1
    with pytest.raises(ValueError, match="examples has an answer within the policy's context of 4"):
        next(sft_steps(policy, [Example((("abcdef", False), ("g", True)))]))


def test_files_are_read_and_every_bad_line_is_reported(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    good = json.dumps({"prompt": "Q", "completion": "A"})
    path.write_bytes(gzip.compress(f"{good}\n\n{good}\n".encode()))
    assert len(read_examples(path)) == 2
    bad = tmp_path / "b.jsonl"
    bad.write_text('{"prompt": "Q"}\n' + good + '\n[1]\n{"question": 1}\n{"messages": 3}\n{')
    with pytest.raises(MalformedRecordError) as caught:
        read_examples(bad)
    for number in (1, 3, 4, 5, 6):
        assert f"{bad}:{number}:" in str(caught.value)
    assert f"{bad}:2:" not in str(caught.value)


def test_the_loss_of_no_example_is_none():
    policy = small_policy(context=8)
    long = Example((("far too long a question", False), ("a", True)))
    assert math.isnan(held_out_answer_loss(policy, [long]))
    assert math.isnan(held_out_answer_loss(policy, []))
