"""Dropout: where it acts, how often, and that it acts nowhere else."""

import pytest
import torch
from hf_models import SEPARATOR, SOURCE_FAMILIES, make

from policies import Dropout, RewardModel, SeparateValue, TransformerConfig, TransformerPolicy
from policies.dropout import dropping
from policies.policy import Policy
from textenv.errors import UnsupportedModelError
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)
CONFIG = TransformerConfig(31, 24, n_layer=2, n_head=2, n_embd=32)
EVERYWHERE = Dropout.everywhere(0.25)
FAMILIES = ["gpt2", "llama", "gpt neox", "opt", "gemma2"]
ROWS = torch.arange(600) % 7, torch.full((60,), 10)
"""Flat ids and lengths of 60 rows."""


def ours(config=CONFIG, recompute=False):
    policy = TransformerPolicy(config)
    policy.transformer.recompute = recompute
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.transformer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


def every_kind():
    return [ours(), ours(TransformerConfig.llama(31, 24, n_layer=2, n_head=2, n_embd=32))]


def hidden(policy, rates=None, seed=0):
    with dropping(policy, rates or Dropout(), seed):
        return policy.hidden_states(*ROWS)


@pytest.mark.parametrize("policy", every_kind(), ids=["gpt", "llama"])
def test_training_mode_scores_as_evaluation_does(policy):
    scores = policy.eval().hidden_states(*ROWS)
    assert torch.equal(policy.train().hidden_states(*ROWS), scores)
    hidden(policy, EVERYWHERE)
    assert torch.equal(policy.hidden_states(*ROWS), scores)  # and after the context


@pytest.mark.parametrize("policy", every_kind(), ids=["gpt", "llama"])
@pytest.mark.parametrize("place", ["residual", "attention", "embedding"])
def test_each_rate_drops_and_zero_changes_no_bit(policy, place):
    plain = policy.hidden_states(*ROWS)
    assert torch.equal(hidden(policy, Dropout()), plain)
    seeded = [hidden(policy, Dropout(**{place: 0.25}), seed) for seed in (1, 1, 2, [1, 2], [1, 3])]
    assert torch.equal(seeded[0], seeded[1])
    for other in (plain, *seeded[2:]):
        assert not torch.equal(seeded[0], other)


def test_the_global_random_state_is_put_back():
    policy = ours()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    hidden(policy, EVERYWHERE)
    assert torch.equal(torch.rand(3), expected)


def before_the_norm(policy, norm):
    """What goes into the last norm, over the course of a list."""
    seen = []
    norm.register_forward_pre_hook(lambda module, given: seen.append(given[0].flatten(0, -2)))
    return seen


def share_is(zeros, rate):
    """The share of zeros is `rate`, within five standard deviations of a binomial."""
    error = (rate * (1 - rate) / zeros.numel()) ** 0.5
    assert abs(zeros.float().mean().item() - rate) < 5 * error


def test_residual_numbers_are_dropped_with_probability_p_and_the_others_grow():
    policy = ours(TransformerConfig(31, 24, n_layer=1, n_head=2, n_embd=32))
    block = policy.transformer.blocks[0]
    torch.nn.init.zeros_(block.mlp_out.weight)
    torch.nn.init.zeros_(block.mlp_out.bias)
    seen = before_the_norm(policy, policy.transformer.ln_f)
    with torch.no_grad():
        hidden(policy)
        for seed in range(4):
            hidden(policy, Dropout(residual=0.3), seed)
        tokens, _lengths = ROWS
        positions = torch.arange(len(tokens)) % 10
        embedded = policy.transformer.token_embedding(tokens)
        embedded = embedded + policy.transformer.position_embedding(positions)
    added = seen[0] - embedded
    for x in seen[1:]:
        share_is(x == embedded, 0.3)
        kept = x != embedded
        torch.testing.assert_close((x - embedded)[kept], (added / 0.7)[kept], atol=1e-5, rtol=1e-4)


def test_embeddings_are_dropped_as_one_sum():
    policy = ours(TransformerConfig(31, 24, n_layer=1, n_head=2, n_embd=32))
    seen = before_the_norm(policy, policy.transformer.blocks[0].ln_1)
    with torch.no_grad():
        hidden(policy)
        hidden(policy, Dropout(embedding=0.4))
    share_is(seen[1] == 0, 0.4)
    kept = seen[1] != 0
    torch.testing.assert_close(seen[1][kept], seen[0][kept] / 0.6)


def test_weights_of_attention_are_dropped_by_head():
    """The first token sees itself alone, so a head's output there is 0, or grows."""
    policy = ours(TransformerConfig(31, 24, n_layer=1, n_head=8, n_embd=32))
    block = policy.transformer.blocks[0]
    seen = before_the_norm(policy, block.attn_out)
    with torch.no_grad():
        for seed in range(20):
            hidden(policy, Dropout(attention=0.2) if seed else None, seed)
    plain, *others = (x[::10].unflatten(1, (8, 4)) for x in seen)
    zero = torch.stack([(x == 0).all(-1) for x in others])
    share_is(zero, 0.2)
    for x, gone in zip(others, zero, strict=True):
        torch.testing.assert_close(x[~gone], plain[~gone] / 0.8)


def test_a_dropped_sum_is_right_on_average():
    policy = ours(TransformerConfig(31, 24, n_layer=1, n_head=2, n_embd=16))
    torch.nn.init.zeros_(policy.transformer.blocks[0].mlp_out.weight)
    seen = before_the_norm(policy, policy.transformer.ln_f)
    tokens = torch.tensor([3, 4, 5]), torch.tensor([3])
    with torch.no_grad():
        policy.hidden_states(*tokens)
        for seed in range(800):
            with dropping(policy, Dropout(residual=0.3, attention=0.3), seed):
                policy.hidden_states(*tokens)
    sampled = torch.stack(seen[1:])
    error = sampled.std(0) / 800**0.5
    assert ((sampled.mean(0) - seen[0]).abs() < 5 * error + 1e-6).all()


@pytest.mark.parametrize("form", [TransformerConfig, TransformerConfig.llama])
def test_recomputed_blocks_drop_the_same(form):
    config = form(31, 24, n_layer=2, n_head=2, n_embd=16)
    gradients = []
    for recompute in (False, True):
        policy = ours(config, recompute)
        with dropping(policy, EVERYWHERE, 3):
            policy.hidden_states(*ROWS).square().sum().backward()
        gradients.append([p.grad.clone() for p in policy.transformer.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_decoding_step_within_the_context_drops_too():
    """The compiled block knows no dropout, so it is not taken."""
    policy = ours()
    observations = torch.full((2, 24), 31).numpy()
    observations[:, :3] = 4
    plain = policy.last_hidden(observations).clone()
    with dropping(policy, Dropout(residual=0.5), 0):
        assert not torch.equal(policy.last_hidden(observations), plain)


# --- policies of other kinds ---------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", ["residual", "attention", "embedding"])
def test_models_of_transformers_drop_at_the_same_places(family, place):
    policy = make(family).train()
    rates = Dropout(**{place: 0.25})
    plain = policy.hidden_states(*ROWS)
    first, again, other = (hidden(policy, rates, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, plain) and not torch.equal(first, other)
    assert torch.equal(policy.hidden_states(*ROWS), plain)
    assert not any(module._forward_hooks for module in policy.model.modules())


def test_a_models_share_of_dropped_numbers():
    policy = make("gpt2", n_layer=1)
    layer = policy.decoder.h[0]
    torch.nn.init.zeros_(layer.mlp.c_proj.weight)
    torch.nn.init.zeros_(layer.mlp.c_proj.bias)
    ins, outs = before_the_norm(policy, layer.ln_1), before_the_norm(policy, policy.decoder.ln_f)
    with torch.no_grad():
        for seed in range(4):
            hidden(policy, Dropout(residual=0.3, embedding=0.2), seed)
    share_is(torch.stack(ins) == 0, 0.2)
    share_is(torch.stack(ins) == torch.stack(outs), 0.3)


SOURCES = torch.tensor([1, 2, SEPARATOR, 3, 4, 5, 1, 2, 3, 4] * 60), ROWS[1]
"""The same for encoder-decoders: 60 rows of one source and an answer."""


@pytest.mark.parametrize("family", SOURCE_FAMILIES)
def test_encoder_decoders_drop_at_the_same_places(family):
    policy = make(family).train()

    def read(rates=None, seed=0):
        with dropping(policy, rates or Dropout(), seed):
            return policy.hidden_states(*SOURCES).nan_to_num()

    plain = read()
    for place in ("residual", "attention", "embedding"):
        rates = Dropout(**{place: 0.25})
        first, again, other = (read(rates, seed) for seed in (0, 0, 1))
        assert torch.equal(first, again), place
        assert not torch.equal(first, plain) and not torch.equal(first, other), place
        assert torch.equal(read(), plain), place
    assert not any(module._forward_hooks for module in policy.model.modules())
    assert not any(module.training for module in policy.model.modules())


def answers_of(seen):
    """What stands before a norm of the decoder at the eight places of the 60 answers."""
    return seen[-1].view(60, 8, -1)


def test_what_a_decoder_adds_is_dropped_by_number_and_by_head():
    """Of T5 with attention to itself alone; its first token sees itself alone."""
    policy = make("t5", num_decoder_layers=1)
    attention, source, mlp = (part for part in policy.decoder.block[0].layer)
    torch.nn.init.zeros_(source.EncDecAttention.o.weight)
    torch.nn.init.zeros_(mlp.DenseReluDense.wo.weight)
    ins, outs = (
        before_the_norm(policy, norm)
        for norm in (attention.layer_norm, policy.decoder.final_layer_norm)
    )
    heads = before_the_norm(policy, attention.SelfAttention.o)
    with torch.no_grad():
        policy.hidden_states(*SOURCES)
        embedded, plain, alone = (answers_of(x) for x in (ins, outs, heads))
        with dropping(policy, Dropout(embedding=0.2), 0):
            policy.hidden_states(*SOURCES)
        share_is(answers_of(ins) == 0, 0.2)
        with dropping(policy, Dropout(residual=0.3), 0):
            policy.hidden_states(*SOURCES)
        dropped = answers_of(outs)
        share_is(dropped == embedded, 0.3)
        kept = dropped != embedded
        added = (plain - embedded) / 0.7
        torch.testing.assert_close((dropped - embedded)[kept], added[kept], atol=1e-5, rtol=1e-4)
        with dropping(policy, Dropout(attention=0.2), 0):
            policy.hidden_states(*SOURCES)
    first, before = (x[:, 0].view(60, 4, 4) for x in (answers_of(heads), alone))
    gone = (first == 0).all(-1)
    share_is(gone, 0.2)
    torch.testing.assert_close(first[~gone], before[~gone] / 0.8)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
def test_recomputed_layers_of_transformers_drop_the_same(family):
    gradients = []
    for recompute in (False, True):
        policy = make(family)
        if recompute:
            policy.checkpoint_activations()
        with dropping(policy, EVERYWHERE, 3):
            policy.hidden_states(*SOURCES).nan_to_num().square().sum().backward()
        found = [p.grad for p in policy.model.parameters() if p.grad is not None]
        gradients.append([g.clone() for g in found])
    torch.testing.assert_close(*gradients)


def test_a_reward_model_and_a_critic_of_its_own_drop():
    shape = TransformerConfig(257, 24, 1, 2, 16)
    policy = TransformerPolicy(shape, tokenizer=BytesTokenizer())
    model = RewardModel.from_policy(policy)
    tokens = model.pad([[1, 2, 3]])
    plain = model.score_tokens(tokens)
    with dropping(model, EVERYWHERE, 0):
        assert model.score_tokens(tokens) != plain
        assert policy.transformer.dropout == Dropout()  # what it was copied from does not
    pair = SeparateValue(policy, model.trunk)
    with dropping(pair, EVERYWHERE, 0):
        assert policy.transformer.dropout == model.trunk.transformer.dropout == EVERYWHERE


def test_networks_that_know_no_dropout_refuse_it():
    class Table(Policy):
        def forward(self, rows):
            return torch.nn.functional.one_hot(rows, 4).float()

    with dropping(Table(4, 8, 4), Dropout(), 0):
        pass
    for model, message in (
        (Table(4, 8, 4), "Table has no dropout"),
        (torch.nn.Linear(1, 1), "no policy"),
    ):
        with pytest.raises(UnsupportedModelError, match=message), dropping(model, EVERYWHERE, 0):
            pass


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_that_are_none_are_refused(rate):
    with pytest.raises(ValueError, match="attention is"):
        Dropout(attention=rate)
