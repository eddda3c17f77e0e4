"""Adapters: what is trained, what the reference is, and that the cache stays exact."""

import numpy as np
import pytest
import torch
from hf_models import CONTEXT, VOCAB, tiny
from letters import Letters

from agents import PPO, Learner, Rollout, Trainer, losses
from agents.collector import Collector
from policies import TransformerConfig, TransformerPolicy, adapter_view, adapters
from policies.huggingface import HuggingFacePolicy
from textenv.errors import AdapterError, CheckpointError
from textenv.vector import TextVectorEnv

peft = pytest.importorskip("peft")
torch.set_num_threads(1)
FAMILIES = ["gpt2", "llama", "gpt neox", "opt", "mistral"]
TEXTS = [[1, 2, 3, 4, 5, 6], [3], [2, 2]]


def lora(**options):
    return peft.LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.3, **options)


def prefix(**options):
    return peft.PrefixTuningConfig(num_virtual_tokens=3, **options)


def prompt_encoder():
    return peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8)


def prompt_tuning():
    return peft.PromptTuningConfig(num_virtual_tokens=3)


KINDS = {
    "lora": lora,
    "prefix": prefix,
    "projected prefix": lambda: prefix(prefix_projection=True, encoder_hidden_size=8),
    "prompt encoder": prompt_encoder,
    "prompt tuning": prompt_tuning,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(family="llama", kind="lora"):
    policy = HuggingFacePolicy(tiny(family), Letters(VOCAB))
    if kind:
        policy.add_adapter(KINDS[kind]())
    return policy


def train_somewhat(policy, seed=0):
    """As if training had moved what is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return policy


def after(policy, texts=TEXTS, cache=None):
    """Logits after each text; without a cache by a plain causal pass."""
    lengths = torch.tensor([len(text) for text in texts])
    with torch.no_grad():
        if cache is None:
            tokens = torch.tensor([token for text in texts for token in text])
            hidden = policy.hidden_states(tokens, lengths)[lengths.cumsum(0) - 1]
        else:
            observations = np.full(cache.shape, VOCAB)
            for row, text in enumerate(texts):
                observations[row, : len(text)] = text
            hidden = policy.last_hidden(observations, cache).clone()
        return policy.logits(hidden)


def same(a, b):
    return torch.allclose(a, b, atol=1e-4, rtol=0)


# --- what an adapter computes ---------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_peft_model_with_and_without_the_cache(family, kind):
    torch.manual_seed(1)
    policy = train_somewhat(make(family, kind))
    with torch.no_grad():
        own = [policy.model(input_ids=torch.tensor([text])).logits[0, -1] for text in TEXTS]
    torch.testing.assert_close(after(policy), torch.stack(own), atol=1e-4, rtol=0)
    cache, texts = policy.new_cache(3, 12), TEXTS
    for _ in range(6):
        assert same(after(policy, texts, cache), after(policy, texts))
        texts = [[*texts[1], 4], [*texts[0], 1], [5, 6]]


OTHERS = {
    "the head too": lambda: peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"]),
    "a head of its own": lambda: lora(modules_to_save=["lm_head"]),
    "DoRA": lambda: lora(use_dora=True),
    "IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_adapters_of_peft(kind):
    policy = make(kind=None)
    plain = after(policy)
    policy.add_adapter(OTHERS[kind]())
    before, reference = after(train_somewhat(policy)), policy.frozen_copy()
    with torch.no_grad():
        own = [policy.model(input_ids=torch.tensor([text])).logits[0, -1] for text in TEXTS]
    torch.testing.assert_close(before, torch.stack(own), atol=1e-4, rtol=0)
    assert same(after(policy, TEXTS, policy.new_cache(3, 12)), before)
    assert same(after(policy.reference()), plain) and not same(before, plain)
    assert torch.equal(after(reference), before)
    now = after(train_somewhat(policy))
    assert torch.equal(after(reference), before) and not same(now, before)
    policy.merge()
    assert same(after(policy), now)


@every_kind
def test_only_the_adapter_and_the_value_head_are_trained(kind):
    policy = make(kind=kind)
    whole = sum(p.numel() for p in tiny("llama").parameters())
    trained = [n for n, p in policy.named_parameters() if p.requires_grad]
    assert {"value_head.weight", "value_head.bias"} < set(trained)
    assert sum(p.numel() for p in policy.parameters() if not p.requires_grad) == whole
    tokens, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[False, True, True]])
    outputs = train_somewhat(policy).outputs(tokens, mask)
    (outputs.logprobs.sum() + outputs.values.sum()).backward()
    missing = [n for n, p in policy.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert any(
        p.grad.abs().max() > 1e-4 for n, p in policy.model.named_parameters() if p.grad is not None
    )


@every_kind
def test_checkpoints_do_not_change_gradients(kind):
    def gradients(checkpoints):
        torch.manual_seed(0)
        policy = train_somewhat(make(kind=kind))
        if checkpoints:
            policy.checkpoint_activations()
        policy.outputs(
            torch.tensor([TEXTS[0]]), torch.arange(6)[None] > 0
        ).logprobs.sum().backward()
        return [p.grad for p in policy.model.parameters() if p.grad is not None]

    for a, b in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@every_kind
@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_minibatch_in_parts_has_the_same_gradient(kind, checkpoints):
    def gradients(size):
        torch.manual_seed(0)
        policy = train_somewhat(make(kind=kind))
        if checkpoints:
            policy.checkpoint_activations()
        tokens = torch.arange(40).view(8, 5) ** 2 % VOCAB
        mask = torch.arange(5).expand(8, 5) > 1
        log = Rollout.from_log(tokens, mask, torch.zeros(8), torch.arange(8))
        trainer = Trainer(policy, PPO(), micro_batch_tokens=size)
        outputs = trainer.outputs(log)
        loss = outputs.logprobs.square().mean() + outputs.values.std() - outputs.entropies.sum()
        return torch.autograd.grad(loss, trainer.trained)

    for whole, parts in zip(gradients(None), gradients(8), strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_virtual_tokens_take_room():
    policy = make(kind="prefix")
    assert policy.context == CONTEXT - 3
    text = [i % VOCAB for i in range(CONTEXT - 3)]
    assert same(after(policy, [text], policy.new_cache(1)), after(policy, [text]))


# --- the cache ------------------------------------------------------------------------------------


@every_kind
def test_the_cache_notices_training_and_switching(kind):
    policy = train_somewhat(make(kind=kind))
    cache = policy.new_cache(3, 12)
    before = after(policy, TEXTS, cache)
    train_somewhat(policy)
    trained = after(policy, TEXTS, cache)
    assert same(trained, after(policy)) and not same(trained, before)
    reference = policy.reference()
    assert same(after(reference, TEXTS, cache), after(make(kind=None)))
    assert same(after(policy, TEXTS, cache), trained)
    with torch.no_grad():
        for weight in policy.model.parameters():
            if not weight.requires_grad:
                weight.mul_(1.5)
    assert same(after(policy, TEXTS, cache), after(policy))
    assert not same(after(policy), trained)


def test_the_cache_notices_what_was_done_to_the_model_directly():
    policy = make(kind=None)
    cache = policy.new_cache(3, 12)
    plain = after(policy, TEXTS, cache)
    policy.add_adapter(lora())
    train_somewhat(policy)
    adapted = after(policy, TEXTS, cache)
    assert same(adapted, after(policy)) and not same(adapted, plain)
    train_somewhat(policy)  # parameters that were not there when the cache was made
    assert same(after(policy, TEXTS, cache), after(policy))
    policy.add_adapter(lora(), "second")
    assert same(after(policy, TEXTS, cache), plain)  # begins as no change
    policy.model.set_adapter("default")
    assert same(after(policy, TEXTS, cache), after(policy))
    assert not same(after(policy, TEXTS, cache), plain)
    policy.model.base_model.disable_adapter_layers()
    assert same(after(policy, TEXTS, cache), plain)


# --- references -----------------------------------------------------------------------------------


@every_kind
def test_the_reference_is_the_model_without_the_adapter(kind):
    policy = train_somewhat(make(kind=kind))
    size = len(list(policy.parameters()))
    trained = [p.requires_grad for p in policy.parameters()]
    reference = policy.reference()
    assert same(after(reference), after(make(kind=None)))
    assert not same(after(policy), after(reference))
    assert len(list(policy.parameters())) == size
    assert [p.requires_grad for p in policy.parameters()] == trained
    step = reference.act(np.array([[1, 2, VOCAB]]), deterministic=True)
    assert step.actions[0] == after(reference, [[1, 2]]).argmax()


@every_kind
def test_a_frozen_copy_keeps_the_adapter_as_it_was(kind, tmp_path):
    policy = train_somewhat(make(kind=kind))
    before = after(policy)
    trained = [n for n, p in policy.named_parameters() if p.requires_grad]
    reference = policy.frozen_copy()
    assert [n for n, p in policy.named_parameters() if p.requires_grad] == trained
    assert torch.equal(after(reference), before) and torch.equal(after(policy), before)
    second = train_somewhat(policy).frozen_copy()
    assert torch.equal(after(reference), before) and not same(after(policy), before)
    assert torch.equal(after(second), after(policy))
    assert reference.frozen_copy() is reference
    other = train_somewhat(make(kind=kind), seed=9).frozen_copy()
    assert not same(after(other), before)
    other.load_weights(reference.save(tmp_path))
    assert torch.equal(after(other), before)
    tables = {p.data_ptr() for p in policy.parameters() if p.shape == (VOCAB, 16)}
    assert len(tables) == len(
        {p.data_ptr() for p in tiny("llama").parameters() if p.shape == (VOCAB, 16)}
    )


def test_with_other_weights_trained_too_all_is_copied():
    policy = make()
    next(p for p in policy.model.parameters() if p.shape == (VOCAB, 16)).requires_grad_(True)
    reference, before = policy.frozen_copy(), after(policy)
    assert isinstance(reference, HuggingFacePolicy)
    train_somewhat(policy)
    assert same(after(reference), before) and not same(after(policy), before)


def test_modules_trained_beside_the_adapter_are_part_of_the_copy():
    policy = HuggingFacePolicy(tiny("llama"), Letters(VOCAB))
    policy.add_adapter(lora(modules_to_save=["norm"]))
    train_somewhat(policy)
    reference, before = policy.frozen_copy(), after(policy)
    assert not isinstance(reference, HuggingFacePolicy)
    train_somewhat(policy)
    assert torch.equal(after(reference), before) and not same(after(policy), before)
    assert same(after(policy.reference()), after(make(kind=None)))


def environment(policy, num_envs=8):
    return TextVectorEnv(
        num_envs,
        prompts=["ab", "c", "bbc"],
        reward=lambda episodes: [sum(e.tokens == 3) / len(e.tokens) for e in episodes],
        tokenizer=policy.tokenizer,
        max_new_tokens=6,
        stop_tokens=[0],
    )


@every_kind
def test_kl_is_0_at_the_start_with_a_trained_adapter_as_the_reference(kind):
    policy = train_somewhat(make(kind=kind))
    reference = policy.frozen_copy()
    learner = Learner(
        policy, environment(policy), PPO(), reference=reference, kl_coef=0.1, n_steps=16
    )
    rollout = learner.collect()
    assert torch.equal(
        learner.outputs(rollout).logprobs, rollout.ref_logprobs
    )  # the same computation
    assert losses.kl_k1(rollout.logprobs, rollout.ref_logprobs, rollout.mask).abs().max() < 1e-5
    now = rollout.ref_logprobs
    train_somewhat(policy)
    with torch.no_grad():
        assert torch.equal(learner.outputs(rollout, reference).logprobs, now)
        moved = learner.outputs(rollout).logprobs
    assert losses.kl_k3(moved, now, rollout.mask).mean() > 0.001


# --- saving, merging ------------------------------------------------------------------------------


@every_kind
def test_an_adapter_is_saved_alone(kind, tmp_path):
    policy = train_somewhat(make(kind=kind))
    policy.frozen_copy()
    policy.save(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert size < 4 * sum(p.numel() for p in policy.parameters())
    loaded = HuggingFacePolicy.load(tmp_path, model=tiny("llama"), tokenizer=Letters(VOCAB))
    assert same(after(loaded), after(policy))
    assert torch.equal(loaded.value_head.weight, policy.value_head.weight)
    assert loaded.context == policy.context
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        n for n, p in make(kind=kind).named_parameters() if p.requires_grad
    }
    other = train_somewhat(make(kind=kind), seed=5)
    cache = other.new_cache(3, 12)
    after(other, TEXTS, cache)
    other.load_weights(tmp_path)
    assert same(after(other, TEXTS, cache), after(policy))
    with pytest.raises(CheckpointError, match=r"no name to load it by: pass model="):
        HuggingFacePolicy.load(tmp_path)
    with pytest.raises(CheckpointError, match="an adapter, the policy has none"):
        make(kind=None).load_weights(tmp_path)


def test_an_adapter_of_another_shape_is_refused(tmp_path):
    make().save(tmp_path)
    other = make(kind=None)
    other.add_adapter(peft.LoraConfig(r=3, target_modules="all-linear"))
    with pytest.raises(CheckpointError, match="another shape"):
        other.load_weights(tmp_path)


def test_merging():
    policy = train_somewhat(make())
    expected = after(policy)
    policy.merge()
    assert same(after(policy), expected)
    assert type(policy.model).__name__ == "LlamaForCausalLM"
    assert all(p.requires_grad for p in policy.parameters())
    with pytest.raises(AdapterError, match="no adapter to merge"):
        policy.merge()
    with pytest.raises(AdapterError, match="virtual tokens cannot be merged"):
        make(kind="prefix").merge()
    with pytest.raises(AdapterError, match="no adapter to switch off"):
        policy.reference()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
def test_a_live_peft_model():
    model = peft.get_peft_model(tiny("llama"), lora(task_type="CAUSAL_LM"))
    policy = train_somewhat(HuggingFacePolicy(model, Letters(VOCAB)))
    assert same(after(policy.reference()), after(make(kind=None)))
    assert not same(after(policy), after(policy.reference()))


def test_adapters_that_do_not_fit_are_refused():
    policy = make(kind=None)
    with pytest.raises(AdapterError, match=r"does not fit.*nowhere"):
        policy.add_adapter(peft.LoraConfig(target_modules=["nowhere"]))
    with pytest.raises(AdapterError, match=r"MULTITASK_PROMPT_TUNING.*use LoRA"):
        policy.add_adapter(
            peft.MultitaskPromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
        )


# --- our own network ------------------------------------------------------------------------------


def test_lora_on_our_own_network(tmp_path):
    config = TransformerConfig(VOCAB, CONTEXT, n_layer=2, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=Letters(VOCAB))
    plain = after(policy)
    names = ["qkv", "attn_out", "mlp_in", "mlp_out"]
    adapters.add_adapter(policy, peft.LoraConfig(r=2, target_modules=names))
    trained = [n for n, p in policy.named_parameters() if p.requires_grad]
    assert all("lora" in n or "value_head" in n for n in trained) and len(trained) == 2 * 4 * 2 + 2
    assert same(after(policy), plain)
    train_somewhat(policy)
    before, reference = after(policy), adapter_view.snapshot_view(policy)
    assert not same(before, plain)
    assert [n for n, p in policy.named_parameters() if p.requires_grad] == trained
    train_somewhat(policy)
    assert torch.equal(after(reference), before) and not same(after(policy), before)
    assert same(after(adapter_view.base_view(policy)), plain)
    assert same(after(policy, TEXTS, policy.new_cache(3, 12)), after(policy))
    with pytest.raises(AdapterError, match="virtual tokens"):
        adapters.add_adapter(policy, prefix())
    now = after(policy)
    adapters.save_adapter(policy, tmp_path / "adapter")
    train_somewhat(policy)
    adapters.load_adapter(policy, tmp_path / "adapter")
    assert torch.equal(after(policy), now)
    adapters.merge(policy)
    assert same(after(policy), now) and all(p.requires_grad for p in policy.parameters())
    policy.save(tmp_path / "policy")
    assert same(after(TransformerPolicy.load(tmp_path / "policy", Letters(VOCAB))), now)
    with pytest.raises(AdapterError, match="no adapter to merge"):
        adapters.merge(policy)


# --- from end to end ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_ppo_learns_through_an_adapter_and_goes_on_after_loading(kind, tmp_path):
    def learner(rate=0.05):
        torch.manual_seed(0)  # of the adapter's first weights
        policy = make(kind=kind)
        reference = policy.reference() if kind == "lora" else policy.frozen_copy()
        return Learner(
            policy,
            environment(policy, 16),
            PPO(n_epochs=2),
            reference=reference,
            kl_coef=0.01,
            learning_rate=rate,
            n_steps=12,
            seed=0,
        )

    still = learner(rate=0.0)
    assert abs(still.update().metrics["approx_kl"]) < 1e-6
    first = learner()
    frozen = [p.clone() for p in first.policy.parameters() if not p.requires_grad]
    updates = [first.update() for _ in range(8)]
    assert updates[0].kl == pytest.approx(0, abs=1e-4)
    assert updates[-1].score > updates[0].score + 0.15
    kept = [p for p in first.policy.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(frozen, kept, strict=True))
    first.save(tmp_path)
    second = learner()
    train_somewhat(second.policy)
    second.load(tmp_path)
    one, other = first.update(), second.update()
    assert (one.score, one.kl, one.entropy) == (
        other.score,
        other.kl,
        other.entropy,
    )


def test_the_ratio_is_1_before_any_step():
    policy = train_somewhat(make())
    collector = Collector(policy, environment(policy), seed=0)
    rollout = collector.collect_steps(20)
    outputs = policy.train().outputs(rollout.tokens, rollout.mask)
    torch.testing.assert_close(outputs.logprobs, rollout.logprobs, atol=1e-4, rtol=0)
