"""Hugging Face models and our own network, by the same rules: the cache changes nothing."""

import copy

import numpy as np
import pytest
import torch
from hf_models import CONTEXT, FAMILIES, SOURCE_FAMILIES, VOCAB, cached, make, tiny, uncached
from letters import Letters

from agents.collector import Collector
from policies import RewardModel
from policies.huggingface import HuggingFacePolicy, train_last_layers
from textenv.errors import UnsupportedModelError, VocabularyMismatchError
from textenv.vector import TextVectorEnv

torch.set_num_threads(1)
ROWS = 4


@pytest.fixture(scope="module")
def policies():
    return {family: make(family) for family in ["ours", *FAMILIES, *SOURCE_FAMILIES]}


any_policy = pytest.mark.parametrize("family", ["ours", *FAMILIES, *SOURCE_FAMILIES])
every_family = pytest.mark.parametrize("family", ["ours", *FAMILIES])
every_hf_family = pytest.mark.parametrize("family", FAMILIES)


def assert_agrees(policy, cache, texts):
    got, expected = cached(policy, cache, texts), uncached(policy, texts)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


# --- the cache ------------------------------------------------------------------------------------


def change(texts, rng):
    """One row goes on, starts anew, goes back, branches off another one, or all share a prompt."""
    row, other = rng.integers(ROWS, size=2)
    new = rng.integers(VOCAB, size=rng.integers(1, 13)).tolist()
    match rng.integers(7):
        case 0 | 1:
            texts[row] = texts[row] + new[:2]
        case 2:
            texts[row] = new
        case 3:
            texts[row] = texts[row][: len(new)] + new[:1]
        case 4:
            texts[row] = texts[other][: 2 * len(new)] + new
        case 5:
            texts[row], texts[other] = texts[other], texts[row]
        case 6:
            texts[:] = [new * 2 + [letter] for letter in range(ROWS)]
    texts[:] = [text[:CONTEXT] for text in texts]


@any_policy
def test_logits_with_and_without_the_cache_agree(family, policies):
    policy, rng = policies[family], np.random.default_rng(0)
    cache = policy.new_cache(ROWS)
    texts = [[1], [2, 3], [4] * CONTEXT, [5, 6, 0]]
    for _ in range(18):
        assert_agrees(policy, cache, texts)
        for _ in range(rng.integers(1, 4)):
            change(texts, rng)


@every_family
def test_a_step_encodes_one_token_a_row(family, policies):
    cache = policies[family].new_cache(2)
    cached(policies[family], cache, [[0, 1, 2], [3, 4]])
    assert cache.encoded_tokens == 5
    cached(policies[family], cache, [[0, 1, 2, 5], [3, 4, 0]])
    assert cache.encoded_tokens == 7


@any_policy
def test_changed_weights_are_noticed(family):
    policy = make(family)
    cache, texts = policy.new_cache(2), [[0, 1, 2, 3, 4, 5], [6, 5]]
    before = cached(policy, cache, texts)
    frozen = next(p for p in policy.parameters() if p.shape[0] == VOCAB).requires_grad_(False)
    with torch.no_grad():
        frozen.mul_(1.5)
    assert_agrees(policy, cache, texts)
    assert (cached(policy, cache, texts) - before).abs().max() > 1e-3


# --- the same numbers as transformers' own --------------------------------------------------------


@every_hf_family
@pytest.mark.parametrize("length", [1, 3, CONTEXT])
def test_logits_are_those_of_the_model_itself(family, length, policies):
    own = tiny(family).eval()
    text = [i * i % VOCAB for i in range(length)]
    with torch.no_grad():
        expected = own(torch.tensor([text])).logits[0]
    tokens = [*text, *text[:2], 5]  # beside other rows
    lengths = torch.tensor([length, len(text[:2]), 1])
    with torch.no_grad():
        got = policies[family].logits(policies[family].hidden_states(torch.tensor(tokens), lengths))
    torch.testing.assert_close(got[:length], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", [*FAMILIES, *SOURCE_FAMILIES])
def test_the_model_itself_works_as_before(family):
    texts = torch.tensor([[1, 2, 3, 4, 5, 6, 0, 1]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = tiny(family).eval().generate(texts, **options)
    policy = make(family)
    assert torch.equal(policy.model.generate(texts, **options), expected)


# --- rollout and scoring --------------------------------------------------------------------------


def rollout_of(policy, temperature=1.0, steps=30, **options):
    envs = TextVectorEnv(
        6,
        prompts=["a", "bcdef", "dd", "geabcd"],
        reward=lambda episodes: [0.0] * len(episodes),
        tokenizer=policy.tokenizer,
        max_new_tokens=10,
        stop_tokens=[0],
        **options,
    )
    collector = Collector(policy, envs, temperature, seed=0)
    return collector.collect_steps(steps)


@any_policy
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_rollout_and_scoring_agree(family, temperature, policies):
    policy = policies[family]
    rollout = rollout_of(policy, temperature, forbidden_tokens=[5], min_new_tokens=2)
    assert len(set((rollout.tokens != VOCAB).sum(1).tolist())) > 4  # ragged
    with torch.no_grad():
        outputs = policy.train().outputs(
            rollout.tokens, rollout.mask, temperature=temperature, action_masks=rollout.action_masks
        )
    torch.testing.assert_close(outputs.logprobs, rollout.logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs.values, rollout.values, atol=1e-4, rtol=0)
    assert outputs.values.abs().max() > 0.1


@every_family
def test_a_shared_prompt_changes_neither_scores_nor_gradients(family):
    policy = make(family)
    tokens = torch.tensor(
        [[1, 2, 3, 4, 5, 6], [1, 2, 3, 5, 0, VOCAB], [4, 4, VOCAB, VOCAB] + [7] * 2]
    )
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]]).bool()

    def of(rows):
        policy.zero_grad()
        together = [policy.outputs(tokens[row], mask[row]) for row in rows]
        loss = sum(s.logprobs.sum() + s.values.square().sum() for s in together)
        loss.backward()
        return loss.item(), [
            None if p.grad is None else p.grad.clone() for p in policy.parameters()
        ]

    (loss, gradients), (expected, each) = of([slice(None)]), of([[0], [1], [2]])
    assert loss == pytest.approx(expected, abs=1e-4)
    assert any(g is not None and g.abs().max() > 0.01 for g in gradients)
    for together, alone in zip(gradients, each, strict=True):
        torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-4)


def test_dropout_stays_off_in_training():
    rates = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    policy = make("gpt2", **rates).train()
    tokens, mask = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[False, True, True, True]])
    first, second = (policy.outputs(tokens, mask).logprobs for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt neox", "opt", "mistral"])
def test_checkpoints_change_memory_and_nothing_else(family):
    rates = {"dropout": 0.5} if family == "opt" else {}
    tokens, mask = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[False, True, True, True]])

    def gradients(policy):
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = policy.outputs(tokens, mask).logprobs.sum()
        loss.backward()
        return kept, loss, [p.grad for p in policy.parameters()]

    plain, policy = make(family, **rates), make(family, **rates)
    policy.checkpoint_activations()
    (much, loss, expected), (little, same, got) = gradients(plain), gradients(policy)
    assert little < 0.7 * much
    assert torch.equal(loss, same)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert not policy.model.training


def test_lower_precision():
    full, policy = make("llama"), make("llama").to(torch.bfloat16)
    policy.value_head.float()
    texts = [[1, 2, 3], [4, 5]]
    near = cached(policy, policy.new_cache(2), texts)
    torch.testing.assert_close(near.float(), uncached(full, texts), atol=0.3, rtol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = full.outputs(torch.tensor([[1, 2, 3]]), torch.tensor([[False, True, True]]))
    outputs.logprobs.sum().backward()
    assert outputs.logprobs.dtype == torch.float32


# --- vocabularies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_head_larger_than_the_vocabulary(family):
    policy = make(family, Letters(5))
    assert policy.pad_token == policy.vocab_size == 5
    assert uncached(policy, [[1, 2]]).shape == (1, 5)
    rollout = rollout_of(make(family, Letters(VOCAB), vocab_size=VOCAB + 9))
    assert rollout.tokens.max() == VOCAB
    probabilities = uncached(policy, [[1, 2]]).softmax(-1)[0]
    step = policy.outputs(torch.tensor([[1, 2, 3]]), torch.tensor([[False, False, True]]))
    assert step.logprobs[0, 2].exp().item() == pytest.approx(probabilities[3].item(), abs=1e-6)


def test_a_head_smaller_than_the_vocabulary():
    with pytest.raises(VocabularyMismatchError, match=r"8 tokens.*resize_token_embeddings\(8\)"):
        make("llama", Letters(8))


# --- what else is done with policies --------------------------------------------------------------


def test_frozen_copies_and_reward_models():
    policy = make("qwen2")
    reference = policy.frozen_copy()
    model = RewardModel.from_policy(policy)
    with torch.no_grad():
        next(policy.model.parameters()).mul_(2.0)
    expected = uncached(make("qwen2"), [[1, 2, 3]])
    torch.testing.assert_close(uncached(reference, [[1, 2, 3]]), expected)
    assert not any(p.requires_grad for p in reference.parameters())
    short, long = model.score_texts(["ab", "ab"], ["c", "cde"])
    assert short == pytest.approx(model.score_texts(["ab"], ["c"])[0], abs=1e-5)
    assert short != pytest.approx(long, abs=1e-4)
    copy.deepcopy(policy).generate(["ab"], max_new_tokens=3)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "gpt neox"])
def test_training_the_last_layers(family):
    policy = make(family)
    train_last_layers(policy, 1)
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert {"value_head.weight", "value_head.bias"} < trained
    layers = {name.split(".")[-4] for name in trained if "self_attn" in name or ".attn" in name}
    assert all(".1." in n or "norm" in n or "ln_f" in n or "value" in n for n in trained), layers
    assert any(".1." in n for n in trained)
    assert any("final" in n or "ln_f" in n or n.endswith("model.norm.weight") for n in trained)
    with pytest.raises(ValueError, match="last 3 layers"):
        train_last_layers(policy, 3)


# --- models that cannot be used -------------------------------------------------------------------


def test_models_of_other_kinds_are_refused():
    import transformers as t

    small = {"vocab_size": VOCAB, "hidden_size": 16, "n_layer": 1, "n_head": 2}
    bloom = t.BloomForCausalLM(t.BloomConfig(**small))  # ALiBi
    with pytest.raises(UnsupportedModelError, match=r"BloomForCausalLM cannot be used"):
        HuggingFacePolicy(bloom, Letters(VOCAB), context=16)
    config = t.MambaConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(UnsupportedModelError, match=r"MambaForCausalLM cannot be used"):
        HuggingFacePolicy(t.MambaForCausalLM(config), Letters(VOCAB), context=16)
    config = t.T5Config(vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(
        UnsupportedModelError, match=r"T5ForConditionalGeneration.*EncoderDecoderPolicy"
    ):
        HuggingFacePolicy(t.T5ForConditionalGeneration(config), Letters(VOCAB))
    with pytest.raises(UnsupportedModelError, match="no head over the vocabulary"):
        HuggingFacePolicy(tiny("gpt2").transformer, Letters(VOCAB))


def test_rotations_that_depend_on_the_longest_text_are_kept_from_it():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}
    policy = make("llama", max_position_embeddings=12, rope_parameters=rope)
    assert policy.context == 12
