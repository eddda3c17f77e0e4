"""Encoder-decoders: what the suite of all policies (test_huggingface) does not say of them."""

import numpy as np
import pytest
import torch
from hf_models import SEPARATOR as S
from hf_models import SOURCE_FAMILIES, START, VOCAB, cached, make, tiny, uncached
from letters import Letters

from agents import PPO, Learner
from agents.collector import Collector
from agents.supervised import Example, sft_steps
from policies import RewardModel, SeparateValue, generate_tokens
from policies.huggingface import EncoderDecoderPolicy, train_last_layers
from textenv import TextVectorEnv
from textenv.errors import AdapterError

torch.set_num_threads(1)
every_family = pytest.mark.parametrize("family", SOURCE_FAMILIES)


@pytest.fixture(scope="module")
def policies():
    return {family: make(family) for family in SOURCE_FAMILIES}


def own_logits(family, text):
    """Of transformers' own forward: after the separator, and after each token behind it."""
    source, answer = text[: text.index(S) + 1], text[text.index(S) + 1 :]
    model = tiny(family).eval()
    with torch.no_grad():
        made = model(torch.tensor([source]), decoder_input_ids=torch.tensor([[START, *answer]]))
    return made.logits[0]


def environment(policy, reward=None, num_envs=4, **options):
    return TextVectorEnv(
        num_envs,
        prompts=["ab", "c", "dabcd"],
        reward=reward or (lambda episodes: [0.0] * len(episodes)),
        tokenizer=policy.tokenizer,
        **{"max_new_tokens": 5, "stop_tokens": [S], **options},
    )


# --- the same numbers as transformers' own --------------------------------------------------------


@every_family
@pytest.mark.parametrize(
    "text", [[S], [1, 2, S], [S, 1], [4, 5, 0, S, 2, S, 3, 3], [1] * 11 + [S] * 12]
)
def test_logits_are_those_of_the_model_itself(family, text, policies):
    policy, expected = policies[family], own_logits(family, text)
    lengths = torch.tensor([2, len(text), 4])  # beside other rows
    with torch.no_grad():
        hidden = policy.hidden_states(torch.tensor([3, S, *text, 1, 2, S, 3]), lengths)
        got = policy.logits(hidden)[2 : 2 + len(text)]
    end = text.index(S)
    torch.testing.assert_close(got[end:], expected, atol=1e-4, rtol=0)
    assert got[:end].isnan().all()  # there is nothing to choose inside a source
    cache = policy.new_cache(2)
    for length in range(end + 1, len(text) + 1):
        got = cached(policy, cache, [text[:length], [2, 2, S, *text[:3]]])
        torch.testing.assert_close(got[0], expected[length - 1 - end], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["mt5", "bart", "pegasus", "marian"])  # they say several things
def test_greedy_answers_are_those_of_generate(family, policies):
    policy, prompts = policies[family], [[1, 2, S], [3, S], [4, 5, 0, 1, S]]
    options = {"num_beams": 1, "do_sample": False, "max_new_tokens": 8}
    model = tiny(family).eval()
    expected = [
        model.generate(torch.tensor([p]), eos_token_id=S, pad_token_id=0, **options)[0, 1:].tolist()
        for p in prompts
    ]
    assert generate_tokens(policy, prompts, 8, temperature=0, stop_tokens=[S]) == expected
    assert len({tuple(answer) for answer in expected}) > 1


# --- what is encoded ------------------------------------------------------------------------------


def test_a_step_decodes_one_token_a_row_and_reads_no_source(policies):
    policy, read = policies["t5"], []
    handles = [
        stack.register_forward_pre_hook(
            lambda _, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
        )
        for stack in (policy.model.encoder, policy.model.decoder)
    ]
    cache = policy.new_cache(3)
    cached(policy, cache, [[1, 2, S], [1, 2, S], [3, 4, 5, S]])
    # Two sources; their keys; three start tokens.
    assert read == [(2, 4), (2, 1), (1, 3)] and cache.encoded_tokens == 10
    read.clear()
    cached(policy, cache, [[1, 2, S, 4], [1, 2, S, 3], [3, 4, 5, S, 0]])
    assert read == [(1, 3)] and cache.encoded_tokens == 13
    read.clear()
    # The first row takes up the others' source; the second one jumps; the third one begins again.
    cached(policy, cache, [[3, 4, 5, S], [1, 2, S, 3, 1, S, 1], [3, 4, 5, S]])
    assert read == [(1, 5)]
    read.clear()
    cached(policy, cache, [[3, 4, S], [3, 4, 5, S], [1, 2, S]])  # one new source, and one is lost
    assert read == [(1, 3), (1, 1), (1, 3)]
    assert cache.store.encoded_sources == 3
    for handle in handles:
        handle.remove()


def test_a_group_has_its_source_read_once(policies):
    policy = policies["bart"]
    cache = policy.new_cache(8)
    texts = [[1, 2, 3, 4, 5, 0, 1, 2, 3, 4, S]] * 8
    got = cached(policy, cache, texts)
    assert cache.store.encoded_sources == 1
    torch.testing.assert_close(got, uncached(policy, texts), atol=1e-4, rtol=0)
    branches = [
        [*text, 3, 2, 1, 0, 1, 2, 3, 4, 5, number % VOCAB] for number, text in enumerate(texts)
    ]
    got = cached(policy, cache, branches)
    assert cache.store.encoded_sources == 1 and len(got.unique(dim=0)) > 6
    torch.testing.assert_close(got, uncached(policy, branches), atol=1e-4, rtol=0)


def test_a_pass_that_fails_leaves_nothing_wrong_behind(policies, monkeypatch):
    policy = policies["t5"]
    cache, texts = policy.new_cache(2), [[1, 2, S, 3], [3, 4, S, 1]]
    cached(policy, cache, texts)
    swapped = [[3, 4, S, 2], [5, 5, S, 0]]
    with monkeypatch.context() as patch:
        patch.setattr(policy.model.encoder, "forward", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cached(policy, cache, swapped)
    for some in (texts, swapped):
        torch.testing.assert_close(
            cached(policy, cache, some), uncached(policy, some), atol=1e-4, rtol=0
        )


# --- scoring --------------------------------------------------------------------------------------


@every_family
def test_scores_and_gradients_do_not_depend_on_the_batch(family):
    policy = make(family)
    pad = VOCAB
    tokens = torch.tensor(
        [[1, 2, S, 4, 5, 0, S], [1, 2, S, 5, S, pad, pad], [4, S, 3, S] + [pad] * 3, [3] * 7]
    )
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    mask[0, 3:], mask[1, 3:5], mask[2, 2] = True, True, True  # nothing is asked of the last row

    def of(rows, extra=0):
        policy.zero_grad()
        loss = 0.0
        for row in rows:
            some = torch.nn.functional.pad(tokens[row], (0, extra), value=pad)
            outputs = policy.outputs(some, torch.nn.functional.pad(mask[row], (0, extra)))
            loss = loss + outputs.logprobs.sum() + outputs.values.square().sum()
        loss.backward()
        return loss.item(), [
            None if p.grad is None else p.grad.clone() for p in policy.parameters()
        ]

    loss, gradients = of([slice(None)])
    for rows, extra in (([[0], [1], [2]], 0), ([slice(None)], 5)):
        expected, each = of(rows, extra)
        assert loss == pytest.approx(expected, abs=1e-4)
        for together, alone in zip(gradients, each, strict=True):
            torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-4)
    for part in ("encoder", "decoder"):
        learned = [p.grad for name, p in policy.named_parameters() if f".{part}." in name]
        assert max(g.abs().max() for g in learned if g is not None) > 0.01


def test_scores_are_the_log_softmax_of_transformers_own(policies):
    for family in ("t5", "bart"):
        text, policy = [3, 1, S, 2, 0, S], policies[family]
        mask = torch.tensor([[False] * 3 + [True] * 3])
        got = policy.outputs(torch.tensor([text]), mask, temperature=0.7).logprobs[0, 3:]
        own = (own_logits(family, text) / 0.7).log_softmax(-1)
        expected = own[torch.arange(3), torch.tensor(text[3:])]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_dropout_stays_off_and_checkpoints_change_memory_only():
    def gradients(policy):
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        tokens, mask = torch.tensor([[1, 2, S, 4, 3]]), torch.tensor([[False] * 3 + [True] * 2])
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = policy.train().outputs(tokens, mask).logprobs.sum()
        loss.backward()
        return kept, loss, [p.grad for p in policy.parameters()]

    for family, rates in (
        ("t5", {"dropout_rate": 0.5}),
        ("bart", {"dropout": 0.5, "activation_dropout": 0.5, "attention_dropout": 0.5}),
    ):
        plain, policy = make(family, **rates), make(family, **rates)
        policy.checkpoint_activations()
        (much, loss, expected), (little, same, got) = gradients(plain), gradients(policy)
        assert little < 0.8 * much
        assert torch.equal(loss, same) and not policy.model.training
        torch.testing.assert_close(loss, gradients(make(family))[1], atol=1e-5, rtol=0)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_lower_precision():
    texts, tokens = [[1, 2, S, 3, 3], [4, S]], torch.tensor([[1, S, 2, 3]])
    mask = torch.tensor([[False, False, True, True]])
    for family in ("t5", "bart"):
        full, policy = make(family), make(family).to(torch.bfloat16)
        policy.value_head.float()
        near = cached(policy, policy.new_cache(2), texts)
        torch.testing.assert_close(near.float(), uncached(full, texts), atol=0.1, rtol=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = full.outputs(tokens, mask)
        outputs.logprobs.sum().backward()
        assert outputs.logprobs.dtype == torch.float32
        torch.testing.assert_close(
            outputs.logprobs, full.outputs(tokens, mask).logprobs, atol=0.1, rtol=0
        )


# --- learning -------------------------------------------------------------------------------------


def test_ppo_learns_and_the_leash_begins_at_zero():
    policy = make("t5")
    before = policy.frozen_copy()

    def share_of_a(episodes):
        return [float(np.mean(episode.tokens == 1)) for episode in episodes]

    envs = environment(policy, share_of_a, num_envs=16, stop_tokens=[])
    learner = Learner(
        policy,
        envs,
        PPO(n_epochs=2),
        reference=before,
        kl_coef=0.01,
        learning_rate=2e-2,
        n_steps=10,
        seed=0,
    )
    updates = list(learner.updates(total_tokens=16 * 10 * 8))
    assert updates[0].kl == pytest.approx(0, abs=1e-5)
    assert updates[-1].kl > 0.05
    assert updates[0].score < 0.4 and updates[-1].score > 0.8


def test_fine_tuning_learns_answers_to_sources():
    """Only an encoder that reads the source can tell the answers apart."""
    policy = EncoderDecoderPolicy(tiny("t5 gated", vocab_size=VOCAB + 1), Letters(VOCAB, stop=True))
    pairs = [("abc", "d"), ("cba", "e"), ("bbb", "fg")]
    examples = [Example(((source, False), (answer, True))) for source, answer in pairs]
    *_, last = sft_steps(policy, examples, epochs=60, learning_rate=2e-2)
    assert last.loss < 0.1
    sources, answers = zip(*pairs, strict=True)
    assert policy.generate(list(sources), 4, temperature=0) == list(answers)


def test_a_reward_model_and_a_critic_of_its_own():
    policy = make("t5")
    model = RewardModel.from_policy(policy)
    one, other = model.score_texts(["ab", "b"], ["c", "c"])
    assert one == pytest.approx(model.score_texts(["ab"], ["c"])[0], abs=1e-5)
    assert one != pytest.approx(other, abs=1e-4)
    with torch.no_grad():
        expected = model.trunk.value_head(
            policy.hidden_states(torch.tensor([0, 1, S, 2]), torch.tensor([4]))
        )
    assert one == pytest.approx(expected[-1].item(), abs=1e-5)  # Letters(7) have no stop token
    both = SeparateValue(policy, model.as_critic())
    rollout = Collector(both, environment(policy), 1.0, seed=0).collect_steps(8)
    outputs = both.outputs(rollout.tokens, rollout.mask)
    torch.testing.assert_close(outputs.logprobs, rollout.logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs.values, rollout.values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_lora_and_the_model_without_it_as_reference(family, tmp_path):
    peft = pytest.importorskip("peft")
    policy, texts = make(family), [[1, 2, S, 3], [4, S]]
    plain = uncached(policy, texts)
    cache = policy.new_cache(2)
    names = ["q", "k", "v"] if family == "t5" else ["q_proj", "k_proj", "v_proj"]
    policy.add_adapter(peft.LoraConfig(r=2, target_modules=names))
    assert policy.model.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    torch.testing.assert_close(cached(policy, cache, texts), plain, atol=1e-4, rtol=0)
    trained = [p for n, p in policy.named_parameters() if "lora" in n and p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.3)
    adapted = uncached(policy, texts)
    torch.testing.assert_close(cached(policy, cache, texts), adapted, atol=1e-4, rtol=0)
    assert (adapted - plain).abs().max() > 1e-2
    torch.testing.assert_close(uncached(policy.reference(), texts), plain, atol=1e-4, rtol=0)
    copied = policy.frozen_copy()
    policy.save(tmp_path)
    loaded = EncoderDecoderPolicy.load(tmp_path, model=tiny(family), tokenizer=policy.tokenizer)
    torch.testing.assert_close(uncached(loaded, texts), adapted, atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.3)
    torch.testing.assert_close(uncached(copied, texts), adapted, atol=1e-5, rtol=0)
    policy.load_weights(tmp_path)
    policy.merge()
    torch.testing.assert_close(uncached(policy, texts), adapted, atol=1e-4, rtol=0)
    with pytest.raises(AdapterError, match=r"PREFIX_TUNING.*use LoRA"):
        policy.add_adapter(peft.PrefixTuningConfig(num_virtual_tokens=2))


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_training_the_last_layers_of_the_decoder(family):
    policy = make(family)
    train_last_layers(policy, 1)
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    inner = {name for name in trained if "value_head" not in name and "norm" not in name}
    assert inner and all("decoder.block.1." in n or "decoder.layers.1." in n for n in inner)
