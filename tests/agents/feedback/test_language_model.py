"""A policy as a model that writes and chooses."""

import numpy as np
import pytest
import torch
from letters import Letters

from agents.feedback.from_models.language_model import LEAD, LocalModel
from policies import TransformerConfig, TransformerPolicy
from textenv.errors import PromptError, PromptTooLongError, TokenizerError
from textenv.frames import ChatTemplate
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)


def bytes_policy(context=96):
    shape = TransformerConfig(257, context, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=3)
    with torch.no_grad():  # choices that differ from one another
        for weight in policy.parameters():
            weight.mul_(4)
    return policy


@torch.inference_mode()
def step_by_step(policy, text, answer):
    """The log-probability of an answer, token by token."""
    ids, total = list(text.encode()), 0.0
    for token in answer.encode():
        logits = policy.choices(policy.last_hidden(np.array([ids])))
        total += logits.double().log_softmax(-1)[0, token].item()
        ids.append(token)
    return total


@pytest.mark.parametrize(
    ("template", "before", "space"),
    [
        (None, f"{{}}{LEAD}", " "),
        (ChatTemplate(), "User: {}\nAssistant:", " "),
        (ChatTemplate(user="<{content}>", answer="{content}"), "<{}>", ""),
    ],
)
def test_options_are_chosen_by_their_likelihood(template, before, space):
    policy, options = bytes_policy(), ("A", "B", "both of them")
    questions = ["Which?", "A or B or both, and why so?"] + [f"q{n}" for n in range(17)]
    chosen = LocalModel(policy, template).choose(questions, options)
    assert chosen.shape == (19, 3)
    for question, shares in list(zip(questions, chosen, strict=True))[:3]:
        text = before.replace("{}", question)
        sums = [step_by_step(policy, text, space + option) for option in options]
        np.testing.assert_allclose(np.log(shares / shares[0]), np.array(sums) - sums[0], atol=1e-4)
    np.testing.assert_allclose(chosen.sum(1), 1)
    assert LocalModel(policy).choose([]).shape == (0, 2)


def test_very_unlikely_options_still_have_shares():
    policy = bytes_policy()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(8)
    model, question = LocalModel(policy), "Which?" + LEAD
    sums = [step_by_step(policy, question, " " + option * 20) for option in "AB"]
    assert max(sums) < -1000  # the likelihoods themselves are 0
    chosen = model.choose(["Which?"], ("A" * 20, "B" * 20))
    np.testing.assert_allclose(chosen[0], [sums[0] > sums[1], sums[1] > sums[0]], atol=1e-3)


def test_texts_are_trimmed_and_repeat_with_their_numbers(monkeypatch):
    def write(seed):
        generator = np.random.default_rng(seed)
        return LocalModel(bytes_policy(), max_new_tokens=8, generator=generator).write(["a", "b"])

    assert write(0) == write(0) != write(1)
    where = "agents.feedback.from_models.language_model.generate"
    monkeypatch.setattr(where, lambda policy, prompts, *given, **more: [" Yes. \n"] * len(prompts))
    assert write(0) == ["Yes.", "Yes."]


def test_questions_that_do_not_fit():
    model = LocalModel(bytes_policy(context=32), max_new_tokens=8)
    room = 32 - len(LEAD) - 1  # an option has two bytes, and the last one is not read
    assert model.choose(["x" * room]).shape == (1, 2)
    with pytest.raises(PromptTooLongError, match=rf"has {room + len(LEAD) + 1} tokens .* reads 31"):
        model.choose(["x" * (room + 1)])
    with pytest.raises(PromptTooLongError, match="reads 25 before an answer of 8"):
        model.write(["x" * 20])


def test_a_policy_without_a_tokenizer():
    shape = TransformerConfig(5, 8, n_layer=1, n_head=1, n_embd=4)
    with pytest.raises(TokenizerError):
        LocalModel(TransformerPolicy(shape))


def test_a_policy_that_has_learned_to_judge():
    """Trained on questions such as "ac" (is a or c earlier?), it puts all pairs in their order."""
    from agents.feedback import PairwiseJudge, rank

    letters = Letters(6)  # e and f are the options
    shape = TransformerConfig(6, 4, n_layer=1, n_head=2, n_embd=32)
    policy = TransformerPolicy(shape, tokenizer=letters, seed=0)
    pairs = [(a, b) for a in "abcd" for b in "abcd" if a != b]
    rows = torch.tensor([letters.encode(a + b + ("e" if a < b else "f")) for a, b in pairs])
    mask = torch.zeros_like(rows, dtype=torch.bool)
    mask[:, 2] = True
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        (-policy.outputs(rows, mask).logprobs.sum() / len(rows)).backward()
        optimizer.step()

    class Model(LocalModel):
        def _prompt(self, question):
            return letters.encode(question)

        def _answer(self, option):
            return letters.encode({"A": "e", "B": "f"}[option])

    judge = PairwiseJudge(Model(policy), question=lambda prompt, one, two, principle: one + two)
    (ranking,) = rank(judge, ["any"], [["c", "a", "d", "b"]])
    assert ranking.ranks == (3, 1, 4, 2)


def test_a_dialogue_is_read_through_the_template():
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    policy = bytes_policy()
    found = LocalModel(policy, ChatTemplate(user="<{content}>", answer="{content}"))
    assert found._prompts([said], 4) == [[*b"<a>b", 256, *b"\n<c>"]]
    plain = LocalModel(policy)._prompts([said, "c"], 4)
    assert bytes(plain[0]) == b"User: a\n\nAssistant: b\n\nUser: c\n\nAssistant:"
    assert bytes(plain[1]) == b"c" + LEAD.encode()
    with pytest.raises(PromptError, match="follows"):
        found.write([[said[0], said[0]]])
