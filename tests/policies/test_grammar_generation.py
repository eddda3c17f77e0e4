"""Answers of `generate` under a grammar, and masks on logits."""

import json

import numpy as np
import pytest
import torch

from policies import TransformerConfig, TransformerPolicy
from policies.sampling import forbid, mask_logits, unpacked
from textenv import TextVectorEnv
from textenv.errors import GrammarError, TokenizerError
from textenv.grammars import JsonSchema, OfRecord
from textenv.tokenizers import BytesTokenizer

SHAPE = TransformerConfig(vocab_size=257, context=40, n_layer=1, n_head=2, n_embd=16)
POLICY = TransformerPolicy(SHAPE, tokenizer=BytesTokenizer(), seed=0)
LIST = JsonSchema({"type": "array", "items": {"type": "boolean"}})


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.3}])
def test_answers_are_texts_of_the_grammar(sampling):
    answers = POLICY.generate(["a", "bc", "d"], 12, n=3, grammar=LIST, batch_size=2, **sampling)
    assert len(answers) == 9
    for answer in answers:
        assert all(item in (True, False) for item in json.loads(answer))


def test_an_environments_rules_have_its_grammar():
    envs = TextVectorEnv(1, prompts=["a"], reward=lambda e: [0.0], grammar=LIST, max_new_tokens=9)
    assert envs.answer_rules["grammar"] == LIST
    assert json.loads(POLICY.generate(["a"], **envs.answer_rules)[0]) is not None


def test_what_cannot_be_used_is_refused():
    with pytest.raises(GrammarError, match="does not compile"):
        POLICY.generate(["a"], 9, grammar="regex:a(")
    with pytest.raises(GrammarError, match="column"):
        POLICY.generate(["a"], 9, grammar=OfRecord())
    with pytest.raises(GrammarError, match="stop_strings"):
        POLICY.generate(["a"], 9, grammar="regex:a", stop_strings=["."])
    bare = TransformerPolicy(SHAPE, seed=0)
    with pytest.raises(TokenizerError):
        bare.generate([[1]], 9, grammar="regex:a", stop_tokens=[256])


@pytest.mark.parametrize("size", [5, 8, 257, 1000])
@pytest.mark.parametrize("shared", [False, True])
def test_forbidding_in_place_is_masking(size, shared):
    rng = np.random.default_rng(size)
    mask = torch.from_numpy(rng.random(size if shared else (3, size)) < 0.4)
    logits = torch.from_numpy(rng.normal(size=(3, size)).astype(np.float32))
    expected = mask_logits(logits, mask)
    assert torch.equal(forbid(logits.clone(), mask), expected)  # none of inference: not in place
    with torch.inference_mode():
        own = logits + 0
        assert torch.equal(forbid(own, mask), expected)


@pytest.mark.parametrize("size", [1, 8, 257])
def test_masks_come_back_from_their_bits(size):
    masks = np.random.default_rng(0).random((4, size)) < 0.5
    table = torch.from_numpy(np.packbits(masks, axis=1))
    assert torch.equal(unpacked(table, size), torch.from_numpy(masks))
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    by_hand = (table[:, :, None] & places).ne(0).flatten(1)[:, :size]  # what other devices do
    assert torch.equal(by_hand, torch.from_numpy(masks))
