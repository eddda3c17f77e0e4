"""Random numbers of prompts, and the law of answers that are made of them."""

import numpy as np
import pytest
import torch

from agents.collector import collector_from, in_order
from agents.evaluation.numbers import numbers_of
from policies import TransformerConfig, TransformerPolicy
from policies.sampling import sample_gumbel
from textenv import Prompt, TextEnv, TextVectorEnv
from textenv.starts import Start
from textenv.testing import exact

ANSWERS = 20_000


class Letters:
    """Three letters and a stop token."""

    vocab_size, stop_token = 4, 3
    name = fingerprint = "three letters"

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids):
        return "".join(chr(ord("a") + int(i)) for i in ids if i < 3)


OPTIONS = {
    "prompts": ["a"],
    "reward": lambda episodes: [0.0] * len(episodes),
    "tokenizer": Letters(),
    "max_new_tokens": 3,
    "min_new_tokens": 2,
}
LISTED = exact.enumerate_answers(TextEnv(**OPTIONS), "a")


def chi_square(counts, law) -> float:
    """The p-value of the test of `counts` against a law."""
    expected = torch.from_numpy(counts.sum() * law)
    statistic = ((torch.from_numpy(counts) - expected) ** 2 / expected).sum()
    return float(
        torch.special.gammaincc(
            torch.tensor((len(law) - 1) / 2, dtype=torch.float64), statistic / 2
        )
    )


def policy(nudge: float) -> TransformerPolicy:
    shape = TransformerConfig(4, 4, n_layer=1, n_head=2, n_embd=32)
    made = TransformerPolicy(shape, tokenizer=Letters(), seed=0)
    with torch.no_grad():
        made.transformer.token_embedding.weight.mul_(5)
        made.transformer.ln_f.bias.add_(nudge)
    return made


@torch.inference_mode()
def listed_logprobs(of, temperature):
    tokens, mask = torch.from_numpy(LISTED.tokens), torch.from_numpy(LISTED.mask)
    # Nothing stops an answer before it has two tokens.
    allowed = torch.ones(int(mask.sum()), 4, dtype=torch.bool)
    allowed[(mask.cumsum(1) <= 2)[mask], 3] = False
    outputs = of.outputs(tokens, mask, temperature=temperature, action_masks=allowed)
    return outputs.logprobs.double().sum(1).numpy()


@torch.inference_mode()
def drawn(of, uniforms, temperature):
    """The answers and their reported log-probabilities, as evaluation draws them."""
    starts = [Start(Prompt("a"), draw_seed=n, episode_seed=n) for n in range(len(uniforms))]
    collector = collector_from(
        of,
        TextVectorEnv(2_000, **OPTIONS),
        starts,
        temperature,
        uniforms=uniforms,
        sampler=sample_gumbel,
    )
    rollout = in_order(collector.collect_episodes(len(starts)))
    texts = [tuple(row) for row in rollout.tokens.tolist()]
    place = {tuple(row): number for number, row in enumerate(LISTED.tokens.tolist())}
    return np.array([place[text] for text in texts]), rollout.logprobs.double().sum(1).numpy()


def test_each_checkpoint_keeps_its_own_law_on_common_numbers():
    uniforms = np.stack([g.random(3) for g in numbers_of([Prompt("a")] * ANSWERS, seed=0)])
    for nudge, temperature in ((0.0, 1.0), (0.15, 0.8)):
        chosen, logprobs = drawn(policy(nudge), uniforms, temperature)
        expected = listed_logprobs(policy(nudge), temperature)
        counts = np.bincount(chosen, minlength=len(expected))
        law = np.exp(expected)
        assert law.sum() == pytest.approx(1, abs=1e-5)
        assert chi_square(counts, law / law.sum()) > 0.01
        np.testing.assert_allclose(logprobs, expected[chosen], atol=1e-5)


def test_numbers_belong_to_what_is_read():
    prompts = [Prompt("a"), Prompt("b", {"x": 1}), Prompt("a"), Prompt("", tokens=[1, 2])]
    prompts.append(Prompt("", messages=[{"role": "user", "content": "a"}]))

    def first_numbers(of, seed=0):
        return [generator.random() for generator in numbers_of(of, seed)]

    found = first_numbers(prompts)
    assert len(set(found)) == 5
    assert first_numbers(prompts[::-1]) == [found[i] for i in (4, 3, 0, 1, 2)]
    assert first_numbers([Prompt("b")]) == [found[1]]
    assert set(first_numbers(prompts, seed=1)).isdisjoint(found)
