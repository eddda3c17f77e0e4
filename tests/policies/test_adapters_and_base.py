"""With its adapters off, a policy is the model it was; what would change that is refused."""

import pytest
import torch
from hf_models import CONTEXT, VOCAB, make, tiny
from letters import Letters

from policies import TransformerConfig, TransformerPolicy, adapters
from policies.huggingface import HuggingFacePolicy
from textenv.errors import AdapterError

peft = pytest.importorskip("peft")
torch.set_num_threads(1)
TEXTS = [[1, 2, 3, 4, 5, 6], [3], [2, 2]]
LAYERS = ["q_proj", "v_proj", "down_proj"]


def policy_of(family="llama", **changes):
    return HuggingFacePolicy(tiny(family, **changes), Letters(VOCAB))


def lora(**options):
    return peft.LoraConfig(**({"r": 2, "target_modules": LAYERS} | options))


def moved(policy, seed=0):
    """As if training had moved what is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return policy


def says(policy):
    """Log-probabilities of the token after each text."""
    lengths = torch.tensor([len(text) for text in TEXTS])
    tokens = torch.tensor([token for text in TEXTS for token in text])
    with torch.no_grad():
        hidden = policy.hidden_states(tokens, lengths)
        return policy.logits(hidden[lengths.cumsum(0) - 1]).log_softmax(-1)


def trained(policy):
    return [name for name, p in policy.named_parameters() if p.requires_grad]


def in_lora(name):
    """Such as a configuration that peft exports from inside only."""
    from peft.tuners.lora import config

    return getattr(config, name)


# --- refused when it is made ----------------------------------------------------------------------

MORE_THAN_ADAPTERS = {
    "PiSSA": (lora(init_lora_weights="pissa"), "takes a part out of the model"),
    "fast PiSSA": (lora(init_lora_weights="pissa_niter_2"), "takes a part out of the model"),
    "OLoRA": (lora(init_lora_weights="olora"), "takes a part out of the model"),
    "CorDA": (
        lora(init_lora_weights="corda", corda_config=in_lora("CordaConfig")()),
        "takes a part out",
    ),
    "LoRA-GA": (
        lora(init_lora_weights="lora_ga", lora_ga_config=peft.LoraGAConfig()),
        "takes a part out of the model",
    ),
    "KaSA": (lora(kasa_config=in_lora("KasaConfig")()), "changes the model's own weights"),
    "all biases": (lora(bias="all"), "bias='all' trains biases of the model"),
    "LoRA's biases": (lora(bias="lora_only"), "bias='lora_only' trains biases of the model"),
    "VeRA's biases": (peft.VeraConfig(r=2, target_modules=["q_proj"], bias="all"), "bias='all'"),
    "more layers": (lora(layer_replication=[[0, 2], [1, 2]]), "makes another model"),
    "aLoRA": (
        lora(alora_invocation_tokens=[2, 3], task_type="CAUSAL_LM"),
        "depends on a text as a whole",
    ),
    "Lily, which looks at all tokens": (
        peft.LilyConfig(r=2, target_modules=["q_proj", "o_proj"]),
        "cannot be used here.*logits differ",
    ),
    "Poly, which needs task numbers": (
        peft.PolyConfig(r=2, target_modules=["q_proj", "o_proj"], task_type="CAUSAL_LM"),
        "cannot be used here.*task_ids",
    ),
}


@pytest.mark.parametrize("kind", MORE_THAN_ADAPTERS)
def test_what_changes_more_than_adapters_is_refused_and_leaves_no_trace(kind):
    config, why = MORE_THAN_ADAPTERS[kind]
    policy = policy_of()
    plain, learns = says(policy), trained(policy)
    with pytest.raises(AdapterError, match=why):
        policy.add_adapter(config)
    assert torch.equal(says(policy), plain) and trained(policy) == learns
    policy.add_adapter(lora())
    now = says(moved(policy))
    with pytest.raises(AdapterError):
        policy.sibling(config, "reward")
    assert torch.equal(says(policy), now) and torch.equal(says(policy.reference()), plain)


def test_loftq_is_refused():
    config = lora()
    config.init_lora_weights = "loftq"  # its own configuration needs another package
    with pytest.raises(AdapterError, match="takes a part out"):
        policy_of().add_adapter(config)


def test_initialisations_of_the_future_are_found_by_what_they_do(monkeypatch):
    def init(layer, name, how):
        weight = layer.get_base_layer().weight
        weight.data = 0.5 * weight.data

    monkeypatch.setattr(peft.tuners.lora.layer.LoraLayer, "reset_lora_parameters", init)
    with pytest.raises(AdapterError, match=r"has changed weights of the model.*q_proj.weight"):
        policy_of().add_adapter(lora())
    with pytest.raises(AdapterError, match=r"has changed weights of the model.*qkv.weight"):
        adapters.add_adapter(make("ours"), lora(target_modules=["qkv"]))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
def test_a_model_that_has_such_an_adapter_already_is_refused():
    model = peft.get_peft_model(tiny("llama"), lora(init_lora_weights="olora"))
    with pytest.raises(AdapterError, match="takes a part out"):
        HuggingFacePolicy(model, Letters(VOCAB))


def test_our_own_network_has_the_same_rules():
    policy = make("ours")
    plain = says(policy)
    for options in ({"init_lora_weights": "pissa"}, {"bias": "all"}):
        with pytest.raises(AdapterError):
            adapters.add_adapter(policy, lora(target_modules=["qkv"], **options))
    assert torch.equal(says(policy), plain)


# --- what is not refused --------------------------------------------------------------------------

EXACT = {
    "LoRA": lora,
    "random from the start": lambda: lora(init_lora_weights=False),
    "orthogonal": lambda: lora(init_lora_weights="orthogonal"),
    "MiCA": lambda: lora(init_lora_weights="mica"),
    "biases of its own": lambda: lora(lora_bias=True),
    "DoRA": lambda: lora(use_dora=True),
    "the head": lambda: lora(target_modules=["lm_head"]),
    "the embedding": lambda: lora(target_modules=["embed_tokens"]),
    "a norm beside": lambda: lora(modules_to_save=["norm"]),
    "an embedding beside": lambda: lora(modules_to_save=["embed_tokens"]),
    "some tokens beside": lambda: lora(trainable_token_indices=[1, 2]),
    "AdaLoRA": lambda: peft.AdaLoraConfig(target_modules=LAYERS, total_step=9),
    "IA3": lambda: peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
    "norms": lambda: peft.LNTuningConfig(target_modules=["input_layernorm", "norm"]),
    "tokens": lambda: peft.TrainableTokensConfig(
        token_indices=[2], target_modules=["embed_tokens"]
    ),
    "HRA": lambda: peft.HRAConfig(r=2, target_modules=["q_proj"]),
    "OSF": lambda: peft.OSFConfig(target_modules=["q_proj"]),
    "VeRA": lambda: peft.VeraConfig(r=2, target_modules=["q_proj"]),
    "RandLora": lambda: peft.RandLoraConfig(r=2, target_modules=["q_proj"]),
}
ALONE = ("a norm beside", "an embedding beside", "AdaLoRA")  # of which there is one a model


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed:UserWarning")  # peft's
@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")
@pytest.mark.parametrize("kind", EXACT)
def test_reference_copy_sibling_and_reload_are_exact(kind, tmp_path):
    policy = policy_of()
    plain = says(policy)
    policy.add_adapter(EXACT[kind]())
    assert torch.equal(says(policy.reference()), plain)
    now = says(moved(policy))
    copy = policy.frozen_copy()
    if kind not in ALONE:
        policy.sibling(EXACT[kind](), "reward")
    assert torch.equal(says(policy), now) and torch.equal(says(copy), now)
    assert torch.equal(says(policy.reference()), plain)
    policy.save(tmp_path)
    again = HuggingFacePolicy.load(tmp_path, model=tiny("llama"), tokenizer=Letters(VOCAB))
    assert torch.equal(says(again), now) and torch.equal(says(again.reference()), plain)
    moved(policy, 1)
    assert torch.equal(says(copy), now) and not torch.allclose(says(policy), now, atol=0.01)
    assert torch.equal(says(policy.reference()), plain)


def test_weights_of_adapted_layers_that_are_trained_too_are_copied_and_no_reference():
    policy = policy_of()
    policy.add_adapter(lora())
    weight = next(p for n, p in policy.named_parameters() if "q_proj.base_layer" in n)
    weight.requires_grad_(True)
    copy, now = policy.frozen_copy(), says(policy)
    assert torch.equal(says(copy), now) and not torch.allclose(says(moved(policy)), now, atol=0.01)
    assert torch.equal(says(copy), now)
    with pytest.raises(
        AdapterError, match=r"trained too, such as .*q_proj.base_layer.*frozen_copy"
    ):
        policy.reference()
    with pytest.raises(AdapterError, match="sibling's outputs would move"):
        policy.sibling(lora(), "reward")


def test_a_second_adapter_that_would_break_the_first_is_refused():
    policy = policy_of("gpt2")  # its head is the embedding, and peft would wrap it twice
    tokens = peft.TrainableTokensConfig(token_indices=[1, 2], target_modules=["wte"])
    policy.add_adapter(tokens)
    now = says(moved(policy))
    for make_another in (policy.frozen_copy, lambda: policy.sibling(tokens, "reward")):
        with pytest.raises(AdapterError, match="beside the first one"):
            make_another()
        assert torch.equal(says(policy), now)


# --- merging --------------------------------------------------------------------------------------

TIED = {
    "head": lambda: lora(target_modules=["lm_head"]),
    "embedding": lambda: lora(target_modules=["wte"]),
    "both": lambda: lora(target_modules=["wte", "lm_head"]),
    "DoRA on the head": lambda: lora(target_modules=["lm_head"], use_dora=True),
    "a head beside": lambda: lora(target_modules=["c_attn"], modules_to_save=["lm_head"]),
    "an embedding beside": lambda: lora(target_modules=["c_attn"], modules_to_save=["wte"]),
    "tokens beside": lambda: lora(
        target_modules=["c_attn"], trainable_token_indices={"wte": [1, 2]}
    ),
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")  # peft's
@pytest.mark.parametrize("kind", TIED)
def test_merging_where_the_head_is_the_embedding(kind, tmp_path):
    policy = policy_of("gpt2")
    assert policy.model.lm_head.weight is policy.model.transformer.wte.weight
    policy.add_adapter(TIED[kind]())
    now = says(moved(policy))
    policy.merge()
    torch.testing.assert_close(says(policy), now, atol=1e-4, rtol=0)
    merged = says(policy)
    assert torch.equal(says(policy.frozen_copy()), merged)
    policy.save(tmp_path)
    again = HuggingFacePolicy.load(tmp_path, tokenizer=Letters(VOCAB))
    assert torch.equal(says(again), merged)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")  # peft's
def test_adapters_tied_to_each_other_are_refused():
    policy = policy_of("gpt2")
    with pytest.raises(AdapterError, match="ensure_weight_tying"):
        policy.add_adapter(lora(target_modules=["wte", "lm_head"], ensure_weight_tying=True))
    assert not hasattr(policy.model, "peft_config")


def test_our_own_head_is_the_embedding_so_that_its_adapter_cannot_be_merged():
    config = TransformerConfig(VOCAB, CONTEXT, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=Letters(VOCAB))
    adapters.add_adapter(policy, lora(target_modules=["token_embedding", "qkv"]))
    now = says(moved(policy))
    with pytest.raises(AdapterError, match="token embedding is the head"):
        adapters.merge(policy)
    assert torch.equal(says(policy), now)


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed:UserWarning")  # peft's
def test_what_cannot_be_merged_is_refused_before_anything_is():
    policy = policy_of("qwen2")  # queries have a bias, outputs have none
    policy.add_adapter(lora(target_modules=["q_proj", "o_proj"], lora_bias=True))
    now = says(moved(policy))
    with pytest.raises(AdapterError, match=r"cannot be merged.*lora_bias"):
        policy.merge()
    assert torch.equal(says(policy), now)
