"""Encoder-decoders on disk, their tokenizers, and what can go wrong."""

import pytest
import torch
from hf_models import CONTEXT, START, VOCAB, cached, make, padded, tiny, uncached
from hf_models import SEPARATOR as S
from letters import Letters

from agents.collector import Collector
from policies import load_policy
from policies.huggingface import EncoderDecoderPolicy, HuggingFacePolicy
from textenv import TextVectorEnv
from textenv.errors import (
    CheckpointError,
    SourceError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from textenv.tokenizers import encode_prompt

torch.set_num_threads(1)
TEXTS = [[1, 2, S, 3], [4, S]]


# --- on disk --------------------------------------------------------------------------------------


def word_tokenizer(words=VOCAB, start=None):
    """Token i is the word "i"; as those of T5 and BART it frames texts, of which "6" is the end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({str(i): i for i in range(words)}, unk_token="0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [("6", 6)] if start is None else [(start, int(start)), ("6", 6)]
    frame = "$A 6" if start is None else f"{start} $A 6"
    made.post_processor = processors.TemplateProcessing(single=frame, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="6", unk_token="0")


@pytest.mark.parametrize("start", [None, "2"])
def test_prompts_look_as_the_models_own_tokenizer_makes_them(start):
    own = word_tokenizer(start=start)
    policy = EncoderDecoderPolicy(tiny("bart"), own)
    assert encode_prompt(policy.tokenizer, "1 3") == own("1 3").input_ids
    assert policy.tokenizer.encode("1 3") == [1, 3]
    assert (policy.separator, policy.start_token, policy.tokenizer.stop_token) == (6, START, 6)


@pytest.mark.parametrize("family", ["t5", "t5 gated", "bart"])
def test_saving_and_loading(family, tmp_path):
    policy = EncoderDecoderPolicy(tiny(family), word_tokenizer(), context=20)
    torch.nn.init.normal_(policy.value_head.weight)
    policy.save(tmp_path)
    for loaded in (
        EncoderDecoderPolicy.load(tmp_path),
        load_policy(tmp_path),
        EncoderDecoderPolicy.from_pretrained(tmp_path, context=20),
    ):
        assert isinstance(loaded, EncoderDecoderPolicy)
        assert torch.equal(uncached(loaded, TEXTS), uncached(policy, TEXTS))
        assert (loaded.context, loaded.separator, loaded.tokenizer.stop_token) == (20, S, S)
    assert torch.equal(load_policy(tmp_path).value_head.weight, policy.value_head.weight)
    other = EncoderDecoderPolicy(tiny(family), word_tokenizer())
    cache = other.new_cache(2)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    before = cached(other, cache, TEXTS)
    other.load_weights(tmp_path)
    torch.testing.assert_close(cached(other, cache, TEXTS), uncached(policy, TEXTS))
    assert not torch.allclose(before, uncached(policy, TEXTS), atol=1e-3)
    framed = EncoderDecoderPolicy(tiny(family), word_tokenizer(start="2"))
    with pytest.raises(VocabularyMismatchError, match="another vocabulary"):
        framed.load_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"kind 'encoder-decoder'.*reads 'huggingface'"):
        HuggingFacePolicy.load(tmp_path)


# --- what can go wrong ----------------------------------------------------------------------------


def test_the_wrong_class_for_a_model(tmp_path):
    with pytest.raises(
        UnsupportedModelError, match=r"T5For\w+ is an encoder-decoder: use EncoderD"
    ):
        HuggingFacePolicy(tiny("t5"), Letters(VOCAB), context=9)
    with pytest.raises(
        UnsupportedModelError, match=r"LlamaFor\w+ is not an encoder-decoder: use Hugg"
    ):
        EncoderDecoderPolicy(tiny("llama"), Letters(6, stop=True))
    for family in ("t5", "bart"):  # transformers would read half of a BART
        EncoderDecoderPolicy(tiny(family), word_tokenizer()).save(tmp_path / family)
        with pytest.raises(UnsupportedModelError, match="for EncoderDecoderPolicy"):
            HuggingFacePolicy.from_pretrained(tmp_path / family)
    HuggingFacePolicy(tiny("llama"), word_tokenizer()).save(tmp_path / "llama")
    with pytest.raises(UnsupportedModelError, match="for HuggingFacePolicy"):
        EncoderDecoderPolicy.from_pretrained(tmp_path / "llama")


def test_a_family_that_does_not_fit_is_refused():
    import transformers as t

    config = t.M2M100Config(
        vocab_size=VOCAB,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        max_position_embeddings=CONTEXT,
        decoder_start_token_id=START,
    )  # its positions count tokens that are no padding
    with pytest.raises(UnsupportedModelError, match=r"M2M100ForCond.*cannot be used as a policy"):
        EncoderDecoderPolicy(t.M2M100ForConditionalGeneration(config), word_tokenizer())


def test_a_model_without_a_start_token():
    model = tiny("t5", decoder_start_token_id=None)
    model.generation_config.decoder_start_token_id = None
    with pytest.raises(UnsupportedModelError, match=r"set model\.config\.decoder_start_token_id"):
        EncoderDecoderPolicy(model, word_tokenizer())


def test_a_text_without_a_separator():
    policy = make("t5")
    with pytest.raises(
        SourceError, match=r"row 1 has no separator \(token 6, 'g'\).*policy.tokeni"
    ):
        policy.act(padded([[1, S], [1, 2]]))
    mask = torch.tensor([[False] * 4, [False, False, True, True]])
    with pytest.raises(SourceError, match="row 1 has no separator"):
        policy.outputs(torch.tensor([[1, S, 3, 3], [1, 2, 3, 3]]), mask)
    with pytest.raises(SourceError, match="row 1 has a chosen token at place 2, inside its source"):
        policy.outputs(torch.tensor([[1, S, 3, 3], [1, 2, S, 3]]), mask)
    plain = TextVectorEnv(
        2, prompts=["a"], reward=lambda e: [0.0] * len(e), tokenizer=Letters(VOCAB)
    )
    with pytest.raises(VocabularyMismatchError, match=r"tokenizer=policy\.tokenizer"):
        Collector(policy, plain, 1.0, seed=0)


def test_a_context_shorter_than_the_texts_a_model_is_tried_with():
    policy = EncoderDecoderPolicy(tiny("bart"), word_tokenizer(), context=3)
    assert policy.context == 3
    assert policy.act(padded([[1, S], [1, 2, S]], 3)).actions.shape == (2,)
    with pytest.raises(ValueError, match="the policy's context is 3"):
        policy.act(padded([[1, S, 1, 1]], 4))
