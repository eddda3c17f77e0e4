import pytest
import torch

from agents.evaluation import evaluate
from agents.report import token_traces
from agents.report.traces import STOP
from policies import TransformerConfig, TransformerPolicy
from textenv import Prompt, Reply, TextVectorEnv, World, load_tokenizer
from textenv.rewards import per_text

TOKENIZER = load_tokenizer("bytes")
PROMPTS = [Prompt(text) for text in ("ab", "c", "中")]


def policy(seed: int) -> TransformerPolicy:
    config = TransformerConfig(TOKENIZER.vocab_size, 16, n_layer=1, n_head=2, n_embd=16)
    made = TransformerPolicy(config, tokenizer=TOKENIZER, seed=seed)
    with torch.no_grad():
        made.value_head.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return made


@pytest.fixture(scope="module")
def envs() -> TextVectorEnv:
    return TextVectorEnv(
        2,
        prompts=["unused"],
        reward=per_text(len),
        tokenizer=TOKENIZER,
        max_new_tokens=8,
        max_prompt_tokens=8,
    )


def test_the_measures_are_those_of_a_pass_by_hand(envs):
    one, other = policy(1), policy(2)
    traces = token_traces(one, envs, PROMPTS, reference=other, temperature=0.9, title="PPO")
    answers = evaluate(one, envs, PROMPTS, reference=other, temperature=0.9)
    assert [trace.prompt for trace in traces] == ["ab", "c", "中"]
    for number, trace in enumerate(traces):
        sample, answer = answers.samples[number], answers.answers[number]
        assert "".join(trace.tokens).removesuffix(STOP) == sample.text
        assert trace.title == f"PPO {sample.score:.3f}"
        measures = trace.measures
        assert list(measures) == ["reward", "KL", "value", "log-probability"]
        assert measures["reward"] == [0.0] * (len(answer) - 1) + [sample.score]
        assert sum(measures["log-probability"]) == pytest.approx(answers.logprobs[number])
        difference = answers.logprobs[number] - answers.ref_logprobs[number]
        assert sum(measures["KL"]) == pytest.approx(difference, abs=1e-5)
        ids = [*PROMPTS[number].text.encode(), *answer]
        hidden = one.hidden_states(torch.tensor(ids), torch.tensor([len(ids)]))
        before = hidden[len(ids) - len(answer) - 1 : -1]
        values = one.value_head(before).squeeze(1).tolist()
        assert measures["value"] == pytest.approx(values, abs=1e-5)
        table = (one.logits(before) / 0.9).log_softmax(-1)
        logprobs = [row[token].item() for row, token in zip(table, answer, strict=True)]
        assert measures["log-probability"] == pytest.approx(logprobs, abs=1e-4)


def test_without_a_reference_there_is_no_kl(envs):
    (trace,) = token_traces(policy(1), envs, PROMPTS[:1])
    assert list(trace.measures) == ["reward", "value", "log-probability"]
    assert trace.title == f"{trace.measures['reward'][-1]:.3f}"


def test_a_stop_token_is_called_by_its_name_and_masks_are_heeded():
    kept = {ord("a"), TOKENIZER.stop_token}
    envs = TextVectorEnv(
        2,
        prompts=["unused"],
        reward=per_text(len),
        tokenizer=TOKENIZER,
        max_new_tokens=8,
        min_new_tokens=3,
        forbidden_tokens=[token for token in range(TOKENIZER.vocab_size) if token not in kept],
    )
    for trace in token_traces(policy(1), envs, [Prompt("a")] * 4):
        written = len(trace.tokens) - (trace.tokens[-1] == STOP)
        assert list(trace.tokens[:written]) == ["a"] * written
        assert trace.measures["reward"][-1] == written
        # No choice at first, then one of two.
        assert trace.measures["log-probability"][:2] == pytest.approx([0, 0], abs=1e-6)
        assert all(-2 < logprob < -0.2 for logprob in trace.measures["log-probability"][3:])
        assert trace.tokens[-1] == STOP or written == 8


class Echo(World):
    def begin(self, record, rng):
        return "?"

    def reply(self, turn, rng):
        return Reply("+-", reward=1.0)


def test_what_a_world_says_stands_between_the_turns_without_measures():
    envs = TextVectorEnv(
        2,
        world=Echo,
        tokenizer=TOKENIZER,
        max_turn_tokens=2,
        max_turns=3,
        max_prompt_tokens=1,
        max_new_tokens=12,
        allowed_tokens=[ord("a")],
    )
    for trace in token_traces(policy(1), envs, [Prompt("")] * 4, reference=policy(2)):
        turns = "".join(trace.tokens).split("+-")
        assert len(turns) == 3 and set("".join(turns).replace(STOP, "")) <= {"a"}
        chosen = [text not in "+-" for text in trace.tokens]
        for numbers in trace.measures.values():
            assert [number == number for number in numbers] == chosen
        paid = [r for r in trace.measures["reward"] if r]
        assert [r for r in paid if r == r] == [1.0] * 3
