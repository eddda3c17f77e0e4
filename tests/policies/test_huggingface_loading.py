"""Loading, saving, and what a user can get wrong: each error says what to do."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hf_models import CONTEXT, VOCAB, cached, make, tiny, uncached
from letters import Letters

from policies import RewardModel, TransformerPolicy, load_policy
from policies.checkpoint import saved_tokenizer
from policies.huggingface import HuggingFacePolicy
from textenv.errors import (
    CheckpointError,
    MissingExtraError,
    ModelUnavailableError,
    TokenizerError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from textenv.tokenizers.huggingface import HuggingFaceTokenizer

torch.set_num_threads(1)
TEXTS = [[1, 2, 3], [4]]


def word_tokenizer(words=VOCAB, **special):
    """Token i is the word "i"."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({str(i): i for i in range(words)}, unk_token="0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


@pytest.fixture
def folder(tmp_path):
    """A model's folder as transformers writes it."""
    tiny("llama").save_pretrained(tmp_path / "model")
    word_tokenizer(eos_token="6").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# --- loading and saving ---------------------------------------------------------------------------


def test_the_tokenizer_of_a_folder_without_its_network(folder, tmp_path):
    HuggingFacePolicy.from_pretrained(folder).save(tmp_path / "saved")
    assert saved_tokenizer(tmp_path / "saved").encode("3 1") == [3, 1]
    assert saved_tokenizer(folder) is None  # no policy was saved there


def test_a_folder_of_transformers(folder):
    policy = HuggingFacePolicy.from_pretrained(folder)
    assert (policy.vocab_size, policy.context, policy.tokenizer.stop_token) == (VOCAB, CONTEXT, 6)
    assert policy.tokenizer.encode("3 1") == [3, 1]
    torch.testing.assert_close(uncached(policy, TEXTS), uncached(make("llama"), TEXTS))
    policy = HuggingFacePolicy.from_pretrained(
        folder, dtype=torch.bfloat16, context=9, tokenizer=Letters(5), seed=3
    )
    assert (policy.dtype, policy.context, policy.vocab_size) == (torch.bfloat16, 9, 5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt neox", "opt projected"])
def test_saving_and_loading_a_whole_policy(family, tmp_path):
    policy = HuggingFacePolicy(tiny(family), word_tokenizer(), context=20, stop="5")
    torch.nn.init.normal_(policy.value_head.weight)
    policy.save(tmp_path)
    loaded = HuggingFacePolicy.load(tmp_path)
    assert torch.equal(uncached(loaded, TEXTS), uncached(policy, TEXTS))
    assert torch.equal(loaded.value_head.weight, policy.value_head.weight)
    assert (loaded.context, loaded.tokenizer.stop_token) == (20, 5)
    assert loaded.dtype == torch.float32
    other = HuggingFacePolicy(tiny(family), word_tokenizer(), context=20, stop="5")
    cache = other.new_cache(2, CONTEXT)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    before = cached(other, cache, TEXTS)
    other.load_weights(tmp_path)
    torch.testing.assert_close(cached(other, cache, TEXTS), uncached(policy, TEXTS))
    assert not torch.allclose(before, uncached(policy, TEXTS), atol=1e-3)


def test_the_precision_is_kept(tmp_path):
    policy = HuggingFacePolicy(tiny("llama").bfloat16(), word_tokenizer(), stop="5")
    policy.save(tmp_path)
    loaded = HuggingFacePolicy.load(tmp_path)
    assert loaded.dtype == torch.bfloat16 and loaded.value_head.weight.dtype == torch.float32
    assert torch.equal(uncached(loaded, TEXTS), uncached(policy, TEXTS))


def test_what_is_saved_can_be_read_by_transformers(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make("mistral").save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        own = model(torch.tensor([TEXTS[0]])).logits[0, -1]
    torch.testing.assert_close(own, uncached(make("mistral"), TEXTS)[0], atol=1e-4, rtol=0)
    HuggingFacePolicy(tiny("llama"), word_tokenizer(eos_token="6")).save(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "6"


def test_gguf(tmp_path):
    gguf = pytest.importorskip("gguf", reason="reading GGUF files needs the gguf package")
    writer = gguf.GGUFWriter(str(tmp_path / "model.gguf"), "llama")
    own = tiny("llama", vocab_size=32)
    config = own.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(32)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for key, weight in own.state_dict().items():
        name = key.replace("model.layers", "blk")
        for theirs, its in names.items():
            name = name.replace(theirs, its)
        if "attn_q" in name or "attn_k" in name:  # llama.cpp's order of rotated pairs
            heads = weight.shape[0] // (config.hidden_size // config.num_attention_heads)
            weight = (
                weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
            )
        writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    policy = HuggingFacePolicy.from_pretrained(
        tmp_path, gguf_file="model.gguf", tokenizer=Letters(32)
    )
    with torch.no_grad():
        expected = own.eval()(torch.tensor([TEXTS[0]])).logits[0, -1]
    torch.testing.assert_close(uncached(policy, TEXTS)[0], expected, atol=1e-4, rtol=0)
    policy.save(tmp_path / "saved")
    torch.testing.assert_close(
        uncached(HuggingFacePolicy.load(tmp_path / "saved", tokenizer=Letters(32)), TEXTS),
        uncached(policy, TEXTS),
    )


def test_nothing_of_transformers_is_imported_before_use():
    code = "import sys, policies, policies.huggingface; print([m for m in sys.modules if m in "
    code += "('transformers', 'peft')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- what can go wrong ----------------------------------------------------------------------------


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ModelUnavailableError, match=r"holds no model.*save_pretrained"):
        HuggingFacePolicy.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="causal language model"):
        HuggingFacePolicy.from_pretrained(tmp_path)


@pytest.mark.parametrize("network", [{"HF_HUB_OFFLINE": True}, {"ENDPOINT": "http://127.0.0.1:9"}])
def test_without_a_hub_the_error_comes_fast(network, tmp_path, monkeypatch):
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name, value in network.items():
        monkeypatch.setattr(constants, name, value)
    close_session()
    begin = time.perf_counter()
    with pytest.raises(
        ModelUnavailableError, match=r"'nobody/has-this'.*the hub cannot be reached.*copy the model"
    ):
        HuggingFacePolicy.from_pretrained("nobody/has-this")
    assert time.perf_counter() - begin < 5
    close_session()


def test_a_model_without_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(TokenizerError, match=r"tokenizer"):
        HuggingFacePolicy.from_pretrained(folder)


def test_a_tokenizer_without_a_stop_token():
    model, tokenizer = tiny("llama"), word_tokenizer()
    with pytest.raises(TokenizerError, match=r"no token that ends an answer.*stop='<one of"):
        HuggingFacePolicy(model, tokenizer)
    assert HuggingFacePolicy(model, tokenizer, stop="4").tokenizer.stop_token == 4
    with pytest.raises(TokenizerError, match="'9' is not a token"):
        HuggingFacePolicy(model, tokenizer, stop="9")
    endless = HuggingFacePolicy(model, HuggingFaceTokenizer(tokenizer))
    assert endless.tokenizer.stop_token is None


def test_a_vocabulary_that_differs_from_the_models_head(folder):
    word_tokenizer(VOCAB + 2, eos_token="6").save_pretrained(folder)
    with pytest.raises(
        VocabularyMismatchError, match=r"has 9 tokens, the model's head 7.*resize_token_embeddings"
    ):
        HuggingFacePolicy.from_pretrained(folder)


def test_packages_that_are_not_installed(folder, monkeypatch):
    lora = pytest.importorskip("peft").LoraConfig()
    for package in ("transformers", "peft"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtraError, match=rf"{package} package.*\[huggingface\]"):
                if package == "peft":
                    make("llama").add_adapter(lora)
                HuggingFacePolicy.from_pretrained(folder)


def test_a_checkpoint_that_does_not_fit(tmp_path):
    policy = make("llama")
    with pytest.raises(CheckpointError, match="holds no policy that can be read"):
        policy.load_weights(tmp_path)
    policy.save(tmp_path)
    with pytest.raises(VocabularyMismatchError, match="another vocabulary"):
        make("llama", Letters(5)).load_weights(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be used"):
        make("llama", num_hidden_layers=1).load_weights(tmp_path)
    with pytest.raises(CheckpointError, match="tokenizer"):  # Letters have no name to load them by
        HuggingFacePolicy.load(tmp_path)
    description = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps({**description, "kind": "transformer"}))
    with pytest.raises(CheckpointError, match="kind 'transformer'"):
        policy.load_weights(tmp_path)
    (tmp_path / "policy.json").write_text(json.dumps(description))
    (tmp_path / "value_head.safetensors").unlink()
    with pytest.raises(CheckpointError, match="value_head"):
        policy.load_weights(tmp_path)


def test_whatever_was_saved_is_read_by_one_function(tmp_path):
    policy = HuggingFacePolicy(tiny("llama"), word_tokenizer(), stop="5")
    policy.save(tmp_path / "policy")
    assert isinstance(load_policy(tmp_path / "policy"), HuggingFacePolicy)
    model = RewardModel.from_policy(policy)
    model.save(tmp_path / "model")
    loaded = RewardModel.load(tmp_path / "model")
    assert isinstance(loaded.trunk, HuggingFacePolicy)
    texts = (["0 1", "2"], ["3 4 5", "6"])
    np.testing.assert_allclose(loaded.score_texts(*texts), model.score_texts(*texts), atol=1e-5)
    with pytest.raises(CheckpointError, match="holds no policy"):
        TransformerPolicy.load(tmp_path / "policy")
