"""Reward model, critic and policy on one trunk: each computes what it would alone."""

import copy

import numpy as np
import pytest
import torch
from hf_models import CONTEXT, VOCAB, padded, tiny
from letters import Letters

from agents import PPO, Learner, Rollout, Trainer
from agents.collector import Collector
from agents.feedback import Ranking, reward_model_steps
from policies import HuggingFacePolicy, RewardModel, SeparateValue
from textenv.errors import AdapterError
from textenv.vector import TextVectorEnv

peft = pytest.importorskip("peft")
torch.set_num_threads(1)
TEXTS = [[1, 2, 3, 4, 5, 6], [3], [2, 2]]
TOKENS = torch.arange(40).view(5, 8) ** 2 % VOCAB
MASK = torch.arange(8).expand(5, 8) > 2


def lora(**options):
    return peft.LoraConfig(**({"r": 2, "target_modules": "all-linear"} | options))


def narrow():
    """Adapts other layers than the policy's."""
    return lora(r=3, target_modules=["q_proj", "v_proj"])


def shaken(policy, seed):
    """As if training had moved what is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return policy


def make_policy(tokenizer=None):
    torch.manual_seed(0)
    policy = HuggingFacePolicy(tiny("llama"), tokenizer or Letters(VOCAB - 1, stop=True))
    policy.add_adapter(lora())
    return shaken(policy, 1)


def make_sibling(policy, name="reward", config=None, seed=2):
    torch.manual_seed(3)
    return shaken(policy.sibling(config or narrow(), name), seed)


def alone(sibling, folder):
    """What was saved of a sibling, on a model of its own."""
    policy = HuggingFacePolicy.load(
        sibling.save(folder), model=tiny("llama"), tokenizer=sibling.tokenizer
    )
    assert not any(a is b for a in policy.parameters() for b in sibling.parameters())
    return policy


def environment(policy, num_envs=8):
    return TextVectorEnv(
        num_envs,
        prompts=["ab", "c", "bbc"],
        reward=lambda episodes: [sum(e.tokens == 3) / len(e.tokens) for e in episodes],
        tokenizer=policy.tokenizer,
        max_new_tokens=6,
        stop_tokens=[0],
    )


def scores_and_gradients(policy):
    outputs = policy.outputs(TOKENS, MASK)
    loss = outputs.logprobs.square().mean() + outputs.values.std() - outputs.entropies.mean()
    loss.backward()
    return outputs, [p.grad for p in policy.parameters() if p.requires_grad]


def weights(policy):
    return [p.detach().clone() for p in policy.parameters()]


def unchanged(before, policy):
    pairs = zip(before, policy.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- what each computes ---------------------------------------------------------------------------


def test_the_policy_computes_the_same_with_siblings():
    policy = make_policy()
    before = policy.outputs(TOKENS, MASK)
    rollout = Collector(policy, environment(policy), seed=0).collect_steps(12)
    trained = [n for n, p in policy.named_parameters() if p.requires_grad]
    sibling = make_sibling(policy)
    assert torch.equal(policy.outputs(TOKENS, MASK).logprobs, before.logprobs)
    assert not torch.allclose(sibling.outputs(TOKENS, MASK).logprobs, before.logprobs, atol=0.1)
    policy.generator = np.random.default_rng(0)
    again = Collector(policy, environment(policy), seed=0).collect_steps(12)
    assert torch.equal(again.tokens, rollout.tokens)
    assert torch.equal(again.logprobs, rollout.logprobs)
    now = [n for n, p in policy.named_parameters() if p.requires_grad]
    assert [n for n in now if ".reward." not in n] == trained
    plain = HuggingFacePolicy(tiny("llama"), policy.tokenizer).outputs(TOKENS, MASK)
    assert torch.allclose(policy.reference().outputs(TOKENS, MASK).logprobs, plain.logprobs)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_sibling_computes_what_a_separate_copy_does(checkpoints, tmp_path):
    policy = make_policy()
    sibling = make_sibling(policy)
    separate = alone(sibling, tmp_path)
    if checkpoints:
        policy.checkpoint_activations()
    scores, gradients = scores_and_gradients(sibling)
    expected, wanted = scores_and_gradients(separate)
    for a, b in zip(scores, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert len(gradients) == len(wanted) > 4
    by_shape = [sorted(g.abs().sum().item() for g in some) for some in (gradients, wanted)]
    np.testing.assert_allclose(*by_shape, rtol=1e-3, atol=1e-5)
    assert sum(g.abs().sum() > 0.01 for g in gradients) > 4
    owned = {id(p) for p in sibling.parameters()}
    assert all((p.grad is not None) == (id(p) in owned) for p in policy.parameters())


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("size", [None, 16])
def test_one_backward_pass_through_policy_and_critic(checkpoints, size, tmp_path):
    """Activations and parts are computed again while other adapters are active."""
    policy = make_policy()
    critic = make_sibling(policy, "value")
    pair = SeparateValue(policy, critic)
    separate = SeparateValue(make_policy(), alone(critic, tmp_path))
    if checkpoints:
        policy.checkpoint_activations()
    norms = []
    for both, part in ((pair, size), (separate, None)):
        log = Rollout.from_log(TOKENS, MASK, torch.zeros(5), torch.arange(5))
        trainer = Trainer(both, PPO(), micro_batch_tokens=part)
        outputs = trainer.outputs(log)
        (outputs.logprobs.square().mean() + outputs.values.std()).backward()
        grads = [p.grad for p in both.parameters() if p.grad is not None]
        norms.append(sorted(grad.norm().item() for grad in grads))
    np.testing.assert_allclose(*norms, rtol=1e-3, atol=1e-6)
    assert len(norms[0]) > 20


def test_caches_stay_exact_while_all_are_used_and_trained():
    policy = make_policy()
    sibling, caches = make_sibling(policy), {}
    for step, texts in enumerate([TEXTS, [[3, 3], *TEXTS[:2]], TEXTS, TEXTS]):
        if step == 2:
            shaken(sibling, 7)
        if step == 3:
            shaken(policy, 8)
        for one in (policy, sibling, policy.reference()):
            kind = type(one)
            cache = caches.setdefault(kind, one.new_cache(3))
            got = one.last_hidden(padded(texts, CONTEXT), cache).clone()
            expected = one.last_hidden(padded(texts, CONTEXT)).clone()
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert len(caches) == 3


# --- training -------------------------------------------------------------------------------------


def test_a_reward_model_on_the_policys_trunk(tmp_path):
    policy = make_policy()
    before, trunk = weights(policy), policy.sibling(narrow(), "reward")
    count = len(list(policy.parameters())) - len(before)
    model = RewardModel.with_fresh_head(trunk)
    assert 0 < sum(p.numel() for p in model.parameters()) < 1_000
    assert trunk.value_head.weight.any()
    rankings = [Ranking(p, ("dd", "aa"), (1, 2)) for p in ("ab", "c", "bbc", "cc")]
    steps = list(reward_model_steps(model, rankings, epochs=15, batch_size=4, learning_rate=0.03))
    assert steps[-1].loss < 0.2 < steps[0].loss and steps[-1].accuracy == 1
    kept = [p for p in policy.parameters() if id(p) not in {id(q) for q in trunk.parameters()}]
    assert len(kept) == len(list(policy.parameters())) - count
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))
    model.mean.fill_(0.25)
    scores = model.score_texts(["ab", "c"], ["da", "ad"])
    model.save(tmp_path)
    fresh = RewardModel.load(tmp_path, trunk=make_policy().sibling(narrow(), "reward"))
    np.testing.assert_allclose(fresh.score_texts(["ab", "c"], ["da", "ad"]), scores, atol=1e-5)
    # The critic of PPO begins as the reward model: one more adapter on the same trunk.
    tables = sum(p.shape == (VOCAB, 16) for p in policy.parameters())
    critic = model.as_critic()
    assert sum(p.shape == (VOCAB, 16) for p in policy.parameters()) == tables
    both = [p.outputs(TOKENS, MASK).values for p in (critic, trunk)]
    torch.testing.assert_close(both[0], torch.where(MASK, both[1] - 0.25, 0.0))
    shaken(critic, 5)
    np.testing.assert_allclose(model.score_texts(["ab", "c"], ["da", "ad"]), scores, atol=1e-6)


def test_ppo_with_the_critic_on_the_policys_trunk(tmp_path):
    """The same run as with a critic of its own, and a resumed run is the uninterrupted one."""

    def learner(shared, folder):
        policy = make_policy(Letters(VOCAB))
        critic = make_sibling(policy, "value")
        reference = policy.reference()
        if not shared:
            critic, policy = alone(critic, folder), make_policy(Letters(VOCAB))
        return Learner(
            SeparateValue(policy, critic),
            environment(policy),
            PPO(n_epochs=2),
            reference=reference,
            kl_coef=0.01,
            learning_rate=0.02,
            n_steps=12,
            seed=0,
        )

    one, separate = learner(True, None), learner(False, tmp_path / "alone")
    base = [p.clone() for p in one.policy.parameters() if not p.requires_grad]
    for _ in range(3):
        update, expected = one.update(), separate.update()
        assert update.score == pytest.approx(expected.score, abs=1e-6)
        for name in ("loss", "value_loss", "explained_variance"):
            assert update.metrics[name] == pytest.approx(expected.metrics[name], abs=1e-3)
    kept = [p for p in one.policy.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(base, kept, strict=True))
    one.save(tmp_path / "run")
    other = learner(True, None)
    other.load(tmp_path / "run")
    results = [(u.score, u.kl, u.metrics["loss"]) for u in (one.update(), other.update())]
    assert results[0] == results[1]


# --- memory and copies ----------------------------------------------------------------------------


def test_the_base_is_in_memory_once():
    policy = make_policy()
    reward = RewardModel.with_fresh_head(make_sibling(policy, "reward"))
    critic = make_sibling(policy, "value")
    parts = [policy, reward, SeparateValue(policy, critic), policy.reference()]
    storages = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
        for part in parts
        for p in [*part.parameters(), *part.buffers()]
    }
    base = sum(p.numel() for p in tiny("llama").parameters())
    added = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    heads = 3 * 17 + 1 + 17  # two siblings', the reference's, the model's mean; the policy's counts
    assert sum(storages.values()) / 4 <= base + added + heads + 100
    assert added < base


def test_a_copy_of_policy_and_critic_together():
    policy = make_policy()
    pair = SeparateValue(policy, make_sibling(policy, "value"))
    frozen, before = pair.frozen_copy(), pair.outputs(TOKENS, MASK)
    assert len(list(frozen.parameters())) == len(list(pair.parameters()))
    shaken(pair, 6)
    for a, b, moved in zip(
        frozen.outputs(TOKENS, MASK), before, pair.outputs(TOKENS, MASK), strict=True
    ):
        assert torch.equal(a, b) and not torch.allclose(a, moved, atol=0.01)
    critic = pair.critic.frozen_copy()
    assert not any(p.requires_grad for p in critic.parameters())
    assert copy.deepcopy(pair.critic).name not in (critic.name, pair.critic.name)


def test_what_cannot_be_shared_is_refused():
    plain = HuggingFacePolicy(tiny("llama"), Letters(VOCAB))
    with pytest.raises(AdapterError, match="add_adapter"):
        plain.sibling(lora(), "reward")
    policy = make_policy()
    with pytest.raises(AdapterError, match="virtual tokens"):
        policy.sibling(peft.PrefixTuningConfig(num_virtual_tokens=2), "reward")
    with pytest.raises(AdapterError, match="modules_to_save"):
        policy.sibling(lora(modules_to_save=["norm"]), "reward")
    with pytest.raises(AdapterError, match="'default' already"):
        policy.sibling(lora(), "default")
    with pytest.raises(AdapterError, match="does not fit"):
        policy.sibling(lora(target_modules=["nowhere"]), "reward")
    assert policy.sibling(lora(), "reward").name == "reward"
