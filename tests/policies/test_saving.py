"""Whatever a policy was made with, and whatever state it has, comes back from `save`.

To add an option: give it to `made` in one of the strategies, and add what shows it to `facts`.
"""

import copy
import json
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from letters import Letters
from safetensors.torch import load_file

from policies import (
    RewardModel,
    SeparateValue,
    TransformerConfig,
    TransformerPolicy,
    load_policy,
)
from policies.adapters import add_adapter
from policies.policy_files import write_tensors
from textenv.errors import CheckpointError, TokenizerError
from textenv.tokenizers import (
    HuggingFaceTokenizer,
    SourceTokenizer,
    encode_prompt,
    load_tokenizer,
    prompt_frame,
    stop_tokens_of,
    train_bpe,
    unused_tokens_of,
)

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from tokenizer_kinds import CORPUS, KINDS, byte_level, tokenizer_of_kind  # noqa: E402
from tokenizers import Tokenizer as RawTokenizer  # noqa: E402

from policies.huggingface import EncoderDecoderPolicy, HuggingFacePolicy  # noqa: E402

torch.set_num_threads(1)
TEXTS = ["the cat", "a", "there they were"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
CONTEXT = 16
STORABLE = sorted(KINDS.keys() - {"letters"})
"""Kinds of tokenizers of the library; one of the user's own is only known to the user."""
SLOW_TO_MAKE = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink these takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


# --- what a policy is -----------------------------------------------------------------------------


def ids(tokenizer, text):
    try:
        return encode_prompt(tokenizer, text)
    except TokenizerError:  # an alphabet without these characters
        return None


def tokenizer_facts(tokenizer):
    return {
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "stop_token": tokenizer.stop_token,
        "stop_tokens": stop_tokens_of(tokenizer),
        "unused_tokens": unused_tokens_of(tokenizer),
        "frame": tuple(map(tuple, prompt_frame(tokenizer))),
        "prompts": [ids(tokenizer, text) for text in TEXTS],
        "texts": [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)],
    }


def facts(policy):
    """All that can be asked of a policy; the generator moves on."""
    rows = np.full((3, min(policy.context, CONTEXT)), policy.pad_token)
    for number, row in enumerate(rows):
        row[: number + 2] = [
            (7 * number + 3 * place + 1) % policy.vocab_size for place in range(number + 2)
        ]
        row[0] = getattr(policy, "separator", row[0])  # an empty source
    tokens = torch.from_numpy(rows)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[1:, 1:3] = tokens[1:, 1:3] != policy.pad_token
    with torch.no_grad():
        outputs = policy.outputs(tokens, mask)
    step = policy.act(rows)
    return {
        "class": type(policy).__name__,
        "context": policy.context,
        "pad_token": policy.pad_token,
        "tokenizer": tokenizer_facts(policy.tokenizer),
        "weights": {name: (w.dtype, digest(w)) for name, w in policy.state_dict().items()},
        "outputs": [digest(part) for part in (outputs.logprobs, outputs.values, outputs.entropies)],
        "actions": (step.actions.tolist(), step.logprobs.tolist(), step.values.tolist()),
        "draws": policy.generator.random(3).tolist(),
        "checkpointing": getattr(policy, "checkpointing", False),
        "chat_template": getattr(policy, "chat_template", None),
    }


def digest(weight):
    return weight.double().flatten().tolist()


def assert_comes_back(policy, load, folder, **given):
    policy.save(folder)
    loaded = load(folder, **given)
    expected, got = facts(policy), facts(loaded)
    for name, value in expected.items():
        assert got[name] == value, name


# --- what policies are made with ------------------------------------------------------------------


def shaken(policy, seed):
    """The policy as after some training: every weight moved, its generator too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if weight.requires_grad or name.startswith("value_head"):
                weight.add_((0.1 * torch.randn(weight.shape, generator=generator)).to(weight.dtype))
    policy.generator.random(seed % 5)
    return policy


def tokenizers():
    """Of the library, of every kind, some as the sources of encoder-decoders."""
    return st.sampled_from(STORABLE).map(tokenizer_of_kind)


@st.composite
def own_policies(draw):
    tokenizer = draw(tokenizers())
    if draw(st.booleans()) and tokenizer.stop_token is not None:
        tokenizer = SourceTokenizer(tokenizer, *draw(st.sampled_from([((), ()), ((1,), (2, 3))])))
    config = TransformerConfig(
        tokenizer.vocab_size,
        draw(st.integers(8, CONTEXT)),
        draw(st.integers(1, 2)),
        draw(st.sampled_from([1, 2])),
        8,
    )
    seed = draw(st.integers(0, 9))
    policy = TransformerPolicy(config, tokenizer=tokenizer, seed=seed)
    if draw(st.booleans()):
        targets = draw(st.sampled_from([["qkv"], ["mlp_in", "attn_out"]]))
        add_adapter(policy, peft.LoraConfig(r=2, target_modules=targets), "mine")
    if draw(st.booleans()):
        policy.chat_template = {"user": "Q: "}
    return shaken(policy.to(draw(st.sampled_from(DTYPES))), seed)


def words_of_transformers():
    """A tokenizer of transformers whose end of a line and whose cat have another name than text."""
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), eos_token="</s>", bos_token="<s>"
    )
    return made


STOPS = [None, "Ċ", "\n", "</s>", ["</s>", "Ċ"], 0]
"""What may be given as `stop`: names, texts and ids of tokens."""


@st.composite
def options(draw, tokenizer):
    """Arguments of the constructors of policies around models of transformers."""
    made = {"seed": draw(st.integers(0, 9)), "bos": draw(st.booleans())}
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        del made["bos"]
    else:
        made["stop"] = draw(st.sampled_from(STOPS))
    if draw(st.booleans()):
        made["context"] = draw(st.integers(8, CONTEXT))
    return made


@st.composite
def foreign_tokenizers(draw):
    if draw(st.booleans()):
        return words_of_transformers()
    return draw(tokenizers())


def causal_model(vocab_size, family, seed):
    torch.manual_seed(seed)
    if family == "gpt2":
        shape = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=vocab_size, **shape))
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=vocab_size, num_hidden_layers=1, **shape)
    config.max_position_embeddings = 32
    return transformers.LlamaForCausalLM(config)


def source_model(vocab_size, seed):
    torch.manual_seed(seed)
    shape = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "num_layers": 1, "n_positions": 32}
    config = transformers.T5Config(vocab_size=vocab_size, decoder_start_token_id=0, **shape)
    return transformers.T5ForConditionalGeneration(config)


ADAPTERS = {
    "none": None,
    "lora": lambda: peft.LoraConfig(r=2, target_modules="all-linear"),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=2),
}


def rows_of(tokenizer):
    known = tokenizer if hasattr(tokenizer, "vocab_size") else None
    return max(getattr(known, "vocab_size", 0), len(getattr(tokenizer, "get_vocab", dict)())) + 3


# --- everything comes back ------------------------------------------------------------------------


@SLOW_TO_MAKE
@given(own_policies())
def test_our_own_network(policy):
    with tempfile.TemporaryDirectory() as folder:
        assert_comes_back(policy, load_policy, folder)


@SLOW_TO_MAKE
@given(st.data())
def test_a_causal_model(data):
    tokenizer = data.draw(foreign_tokenizers())
    seed, adapter = data.draw(st.integers(0, 9)), data.draw(st.sampled_from(sorted(ADAPTERS)))
    model = causal_model(rows_of(tokenizer), data.draw(st.sampled_from(["gpt2", "llama"])), seed)
    model.to(data.draw(st.sampled_from(DTYPES)))
    base = copy.deepcopy(model)
    policy = HuggingFacePolicy(model, tokenizer, **data.draw(options(tokenizer)))
    if adapter != "none":
        policy.add_adapter(ADAPTERS[adapter]())
    if data.draw(st.booleans()):
        policy.checkpoint_activations()
    if data.draw(st.booleans()):  # the adapter too
        policy.model.to(data.draw(st.sampled_from(DTYPES)))
    shaken(policy, seed)
    given_again = {} if adapter == "none" else {"model": base}
    with tempfile.TemporaryDirectory() as folder:
        assert_comes_back(policy, HuggingFacePolicy.load, folder, **given_again)


@SLOW_TO_MAKE
@given(st.data())
def test_an_encoder_decoder(data):
    tokenizer = data.draw(foreign_tokenizers())
    if data.draw(st.booleans()) and hasattr(tokenizer, "fingerprint"):
        tokenizer = SourceTokenizer(tokenizer, (1,), (2, 3))
    seed = data.draw(st.integers(0, 9))
    model = source_model(rows_of(tokenizer), seed)
    base = copy.deepcopy(model)
    policy = EncoderDecoderPolicy(model, tokenizer, **data.draw(options(tokenizer)))
    adapted = data.draw(st.booleans())
    if adapted:
        policy.add_adapter(ADAPTERS["lora"]())
    shaken(policy, seed)
    given_again = {"model": base} if adapted else {}
    with tempfile.TemporaryDirectory() as folder:
        assert_comes_back(policy, EncoderDecoderPolicy.load, folder, **given_again)


@SLOW_TO_MAKE
@given(own_policies(), st.floats(-1e3, 1e3))
def test_a_reward_model(trunk, mean):
    with tempfile.TemporaryDirectory() as folder:
        model = RewardModel.from_policy(trunk, seed=3)
        model.mean.fill_(mean)
        model.save(folder)
        again = RewardModel.load(folder)
        assert again.mean == model.mean
        if ids(trunk.tokenizer, "a") is not None:
            scores = (m.score_texts(["a"] * 2, ["a", "aa"]).tolist() for m in (model, again))
            assert next(scores) == next(scores)
        assert facts(again.trunk) == facts(model.trunk)


def test_a_critic_of_its_own(tmp_path):
    tokenizer = tokenizer_of_kind("trained")
    config = TransformerConfig(tokenizer.vocab_size, 12, 1, 1, 8)
    parts = [TransformerPolicy(config, tokenizer=tokenizer, seed=seed) for seed in (0, 1)]
    policy = SeparateValue(*(shaken(part, 4) for part in parts))
    assert_comes_back(policy, SeparateValue.load, tmp_path)


# --- one by one -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "name"), [("Ċ", "Ċ"), ("\n", "Ċ"), ("Ġcat", "Ġcat"), (" cat", "Ġcat")]
)
def test_a_stop_token_whose_text_is_not_its_name(stop, name, tmp_path):
    tokenizer = words_of_transformers()
    vocabulary = tokenizer.get_vocab()
    if name not in vocabulary:
        pytest.skip(f"{name} was not learnt")
    policy = HuggingFacePolicy(causal_model(len(vocabulary), "gpt2", 0), tokenizer, stop=stop)
    assert policy.tokenizer.stop_token == vocabulary[name]
    policy.save(tmp_path)
    for loaded in (load_policy(tmp_path), HuggingFacePolicy.load(tmp_path)):
        assert loaded.tokenizer.stop_token == vocabulary[name]


def test_a_folder_of_version_0_1_that_could_not_be_loaded(tmp_path):
    """It noted the stop token by its text."""
    tokenizer = words_of_transformers()
    stop = tokenizer.get_vocab()["Ċ"]
    HuggingFacePolicy(causal_model(stop + 200, "gpt2", 0), tokenizer, stop="Ċ").save(tmp_path)
    description = json.loads((tmp_path / "policy.json").read_text())
    saved = {k: description["tokenizer"][k] for k in ("name", "fingerprint")}
    old = {k: description[k] for k in ("format", "kind", "base", "dtype", "context")}
    old["tokenizer"] = saved | {"stop": "\n"}
    (tmp_path / "policy.json").write_text(json.dumps(old))
    assert HuggingFacePolicy.load(tmp_path).tokenizer.stop_token == stop


def test_an_adapter_finds_its_model_with_the_arguments_it_was_loaded_with(tmp_path):
    tokenizer = words_of_transformers()
    model = causal_model(len(tokenizer), "llama", 0)
    for target in (model, tokenizer):
        target.save_pretrained(tmp_path / "hub" / "inner")
    options = {"subfolder": "inner", "attn_implementation": "eager"}
    policy = HuggingFacePolicy.from_pretrained(
        tmp_path / "hub", tokenizer=tokenizer, dtype=torch.bfloat16, **options
    )
    policy.add_adapter(ADAPTERS["lora"]())
    shaken(policy, 1)
    assert policy.loaded_with == options
    assert_comes_back(policy, HuggingFacePolicy.load, tmp_path / "saved")


def test_arguments_that_no_file_can_keep_are_named(tmp_path):
    tokenizer = words_of_transformers()
    model = causal_model(len(tokenizer), "llama", 0)
    for target in (model, tokenizer):
        target.save_pretrained(tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    policy = HuggingFacePolicy.from_pretrained(tmp_path / "model", config=config)
    policy.save(tmp_path / "whole")  # all is in the folder
    policy.add_adapter(ADAPTERS["lora"]())
    with pytest.warns(UserWarning, match=r"config of from_pretrained cannot be kept.*model=\.\.\."):
        policy.save(tmp_path / "adapter")


def test_an_adapter_of_a_model_that_was_trained_is_not_put_on_another(tmp_path):
    """Its base was trained, or merged, after it was loaded: its name gives other weights."""
    tokenizer = words_of_transformers()
    model = causal_model(len(tokenizer), "llama", 0)
    for target in (model, tokenizer):
        target.save_pretrained(tmp_path / "model")
    policy = shaken(HuggingFacePolicy.from_pretrained(tmp_path / "model"), 1)
    base = copy.deepcopy(policy.model)
    policy.add_adapter(ADAPTERS["lora"]())
    policy.save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"differ from those of .*model=\.\.\."):
        HuggingFacePolicy.load(tmp_path / "saved")
    assert_comes_back(policy, HuggingFacePolicy.load, tmp_path / "saved", model=base)


def test_every_kind_of_tokenizer_comes_back_from_its_file(tmp_path):
    for number, kind in enumerate(STORABLE):
        tokenizer = tokenizer_of_kind(kind)
        if not hasattr(tokenizer, "save"):
            continue
        path = tmp_path / f"{number}.json"
        tokenizer.save(path)
        assert tokenizer_facts(load_tokenizer(str(path))) == tokenizer_facts(tokenizer), kind


def test_a_raw_tokenizer_and_one_that_was_trained_here(tmp_path):
    """Neither has a name by which it could be found."""
    raw = byte_level()
    assert isinstance(raw, RawTokenizer)
    for number, tokenizer in enumerate([HuggingFaceTokenizer(raw, stop=0), train_bpe(CORPUS, 300)]):
        model = causal_model(tokenizer.vocab_size, "llama", 0)
        policy = HuggingFacePolicy(model, tokenizer)
        assert_comes_back(policy, load_policy, tmp_path / str(number))


def test_a_tokenizer_of_the_users_own_is_asked_for(tmp_path):
    config = TransformerConfig(7, 8, 1, 1, 8)
    policy = TransformerPolicy(config, tokenizer=Letters(6, stop=True))
    policy.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"'letters'.*tokenizer=\.\.\."):
        load_policy(tmp_path)
    assert load_policy(tmp_path, Letters(6, stop=True)).tokenizer.stop_token == 6


def test_weights_that_were_read_outlive_the_file_that_is_written_anew(tmp_path):
    """safetensors maps the file; cutting it short would end the process that reads."""
    path = tmp_path / "weights.safetensors"
    write_tensors({"a": torch.arange(100_000.0)}, path)
    mapped = load_file(path)["a"]
    write_tensors({"a": torch.zeros(1)}, path)
    assert mapped[-1] == 99_999 and load_file(path)["a"].shape == (1,)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
