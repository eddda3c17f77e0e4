import itertools

import numpy as np
import pytest
import torch
from hf_models import CONTEXT, VOCAB, make, tiny

from policies import generate_tokens
from policies.beams import beam_search
from policies.generation import penalised
from textenv.errors import EmptyPromptsError, PromptTooLongError

torch.set_num_threads(1)
STOP = 1
PROMPT = [2, 5, 3]


@pytest.fixture(scope="module", params=["ours", "llama"])
def policy(request):
    return make(request.param)


def logprob_of(policy, answer):
    tokens = torch.tensor([[*PROMPT, *answer]])
    mask = torch.arange(tokens.shape[1])[None] >= len(PROMPT)
    with torch.no_grad():
        return float(policy.outputs(tokens, mask).logprobs.sum())


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beams_find_the_best_of_all_answers(policy, penalty):
    longest = 2
    others = [token for token in range(VOCAB) if token != STOP]
    answers = [
        (*before, last)
        for length in range(1, longest + 1)
        for before in itertools.product(others, repeat=length - 1)
        for last in (range(VOCAB) if length == longest else [STOP])
    ]
    scores = {a: logprob_of(policy, a) / len(a) ** penalty for a in answers}
    best = sorted(scores, key=scores.get, reverse=True)
    found = beam_search(
        policy, PROMPT, longest, beams=60, length_penalty=penalty, stop_tokens=[STOP]
    )
    assert [tuple(beam.tokens) for beam in found[:15]] == best[:15]
    assert found[0].score == pytest.approx(scores[best[0]], abs=1e-4)
    assert found[0].logprob == pytest.approx(logprob_of(policy, best[0]), abs=1e-4)


def test_one_beam_is_greedy(policy):
    (beam,) = beam_search(policy, PROMPT, 8, beams=1, stop_tokens=[STOP])
    (greedy,) = generate_tokens(policy, [PROMPT], 8, temperature=0, stop_tokens=[STOP])
    assert beam.tokens == greedy


@pytest.mark.parametrize("beams", [2, 3, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_beams_are_those_of_transformers(beams, penalty):
    policy = make("llama")
    model = tiny("llama")
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=beams,
            num_return_sequences=beams,
            length_penalty=penalty,
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=STOP,
            pad_token_id=STOP,
            return_dict_in_generate=True,
            output_scores=True,
        )
    found = beam_search(policy, PROMPT, 6, beams=beams, length_penalty=penalty, stop_tokens=[STOP])
    for beam, row, score in zip(found, theirs.sequences, theirs.sequences_scores, strict=True):
        assert beam.tokens == row[len(PROMPT) :][: len(beam.tokens)].tolist()
        assert beam.score == pytest.approx(float(score), abs=1e-4)


def test_what_cannot_be_searched_is_named(policy):
    with pytest.raises(ValueError, match="beams is 0"):
        beam_search(policy, PROMPT, beams=0)
    with pytest.raises(EmptyPromptsError):
        beam_search(policy, [], 2, stop_tokens=[])
    with pytest.raises(PromptTooLongError, match="leaves room for 1"):
        beam_search(policy, PROMPT, CONTEXT, stop_tokens=[])


# ------------------------------------------------------------------------- bias and penalty


def test_a_bias_is_added_to_logits(policy):
    (pushed,) = generate_tokens(
        policy, [PROMPT], 5, temperature=0, stop_tokens=[], logit_bias={4: 100.0}
    )
    assert pushed == [4] * 5
    (never,) = generate_tokens(
        policy, [PROMPT], 12, temperature=2.0, stop_tokens=[], logit_bias={4: -100.0, 0: -100.0}
    )
    assert not {0, 4} & set(never)
    with pytest.raises(ValueError, match=f"names the token {VOCAB}; the vocabulary has {VOCAB}"):
        generate_tokens(policy, [PROMPT], 1, stop_tokens=[], logit_bias={VOCAB: 1.0})


def test_the_penalty_is_that_of_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0))
    texts = np.array([[0, 3, 3], [6, 5, 4], [1, 1, 1]])
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.from_numpy(texts), logits.clone())
    assert torch.equal(penalised(logits, texts, 1.7), theirs)
    padded = np.array([[0, 3, VOCAB], [6, 5, 4], [1, VOCAB, VOCAB]])
    assert torch.equal(penalised(logits, padded, 1.7), theirs)


def test_a_penalty_keeps_answers_from_repeating(policy):
    settings = {"temperature": 0, "stop_tokens": [], "logit_bias": {4: 3.0}}
    (plain,) = generate_tokens(policy, [PROMPT], 6, **settings)
    (varied,) = generate_tokens(policy, [PROMPT], 6, repetition_penalty=50.0, **settings)
    assert len(set(varied)) > len(set(plain))
    with pytest.raises(ValueError, match="repetition_penalty is 0"):
        generate_tokens(policy, [PROMPT], 1, stop_tokens=[], repetition_penalty=0)
