import math

import pytest
import torch

from policies import Transformer, TransformerConfig, TransformerPolicy

torch.set_num_threads(1)
CONFIG = TransformerConfig(vocab_size=31, context=24, n_layer=3, n_head=4, n_embd=32)


def strong_policy(config=CONFIG, seed=0):
    """A policy with large random weights, biases and norms, so that every part shows in the end."""
    policy = TransformerPolicy(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.transformer.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return policy


def logits_of(policy, rows):
    """Logits of all tokens of several rows, one (length, V) tensor a row."""
    lengths = torch.tensor([len(row) for row in rows])
    with torch.no_grad():
        logits = policy.logits(policy.hidden_states(torch.cat(rows), lengths))
    return logits.split(lengths.tolist())


def random_rows(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(CONFIG.vocab_size, (n,), generator=generator) for n in lengths]


# --- against another implementation ---------------------------------------------------------------


@pytest.fixture(scope="module")
def twins():
    """A policy of ours and transformers' GPT-2 with the same weights."""
    transformers = pytest.importorskip("transformers", reason="needs the extra 'huggingface'")
    policy = strong_policy()
    config = policy.config
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            activation_function="gelu",  # the exact one, as ours
        )
    ).eval()
    names = {
        "token_embedding": "wte",
        "position_embedding": "wpe",
        "blocks": "h",
        "qkv": "attn.c_attn",
        "attn_out": "attn.c_proj",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    state = {}
    for name, weight in policy.transformer.state_dict().items():
        path = ".".join(names.get(part, part) for part in name.split("."))
        transposed = weight.ndim == 2 and ".h." in f".{path}"  # their Conv1D is (in, out)
        state[f"transformer.{path}"] = weight.T if transposed else weight
    state["lm_head.weight"] = state["transformer.wte.weight"]
    theirs.load_state_dict(state)
    return policy, theirs


def test_logits_equal_those_of_transformers_gpt2(twins):
    policy, theirs = twins
    rows = random_rows(17)
    (ours,) = logits_of(policy, rows)
    with torch.no_grad():
        expected = theirs(rows[0][None]).logits[0]
    assert expected.std() > 0.5  # large enough to tell
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_logits_of_ragged_rows_equal_those_of_transformers_gpt2(twins):
    policy, theirs = twins
    rows = random_rows(3, 24, 1, 11)
    for row, ours in zip(rows, logits_of(policy, rows), strict=True):
        with torch.no_grad():
            expected = theirs(row[None]).logits[0]
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


# --- attention ------------------------------------------------------------------------------------


def test_a_token_changes_nothing_before_it_and_something_after():
    policy = strong_policy()
    (row,) = random_rows(12)
    (before,) = logits_of(policy, [row])
    for place in (0, 5, 11):
        changed = row.clone()
        changed[place] = (changed[place] + 1) % CONFIG.vocab_size
        (after,) = logits_of(policy, [changed])
        torch.testing.assert_close(after[:place], before[:place], atol=1e-6, rtol=0)
        moved = (after[place:] - before[place:]).abs().amax(1)
        assert (moved > 1e-3).all()


def test_rows_do_not_see_each_other():
    policy = strong_policy()
    rows = random_rows(9, 4, 15)
    together = logits_of(policy, rows)
    for row, expected in zip(rows, together, strict=True):
        torch.testing.assert_close(logits_of(policy, [row])[0], expected, atol=1e-5, rtol=0)


def test_order_matters():
    policy = strong_policy()
    (forth,) = logits_of(policy, [torch.tensor([3, 4, 5, 6])])
    (back,) = logits_of(policy, [torch.tensor([4, 3, 5, 6])])
    assert (forth[-1] - back[-1]).abs().max() > 1e-3


# --- the start ------------------------------------------------------------------------------------


def test_initial_weights_are_gpt2s():
    config = TransformerConfig(vocab_size=500, context=200, n_layer=8, n_head=4, n_embd=64)
    residual = 0.02 / math.sqrt(2 * 8)
    for name, parameter in Transformer(config).named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name  # the scales of layer norms
        else:
            std = residual if "attn_out" in name or "mlp_out" in name else 0.02
            error = std / math.sqrt(2 * parameter.numel())  # of a standard deviation
            assert abs(parameter.std().item() - std) < 5 * error, name
            assert abs(parameter.mean().item()) < 5 * std / math.sqrt(parameter.numel()), name


def test_the_head_is_the_token_embedding():
    policy = TransformerPolicy(CONFIG)
    names = dict(policy.named_parameters())
    matrices = [name for name, p in names.items() if CONFIG.vocab_size in p.shape]
    assert matrices == ["transformer.token_embedding.weight"]
    hidden = torch.randn(5, CONFIG.n_embd)
    expected = hidden @ names["transformer.token_embedding.weight"].T
    torch.testing.assert_close(policy.logits(hidden), expected)


def test_values_are_zero_and_choices_nearly_uniform_at_the_start():
    policy = TransformerPolicy(CONFIG)
    tokens = torch.stack(random_rows(10, 10))
    mask = torch.ones_like(tokens).bool()
    mask[:, 0] = False
    outputs = policy.outputs(tokens, mask)
    assert (outputs.values == 0).all()
    assert (outputs.entropies[mask] > math.log(CONFIG.vocab_size) - 0.05).all()


def test_the_seed_makes_the_weights():
    first, same, other = (TransformerPolicy(CONFIG, seed=seed) for seed in (3, 3, 4))
    for name, weight in first.transformer.state_dict().items():
        assert torch.equal(weight, same.transformer.state_dict()[name])
        if weight.ndim == 2:
            assert not torch.equal(weight, other.transformer.state_dict()[name])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"n_embd": 30}, "n_head 4 does not divide n_embd 30"),
        ({"n_layer": 0}, "every size must be 1 or more"),
        ({"context": 0}, "every size must be 1 or more"),
    ],
)
def test_shapes_that_make_no_network_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**({"vocab_size": 10, "context": 10} | shape))


def test_recomputing_blocks_keeps_less_and_gives_the_same_gradients():
    policy = TransformerPolicy(TransformerConfig(7, 12, n_layer=3, n_head=2, n_embd=16))
    tokens = torch.randint(0, 7, (4, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    gradients, kept = [], []
    for recompute in (False, True):
        policy.transformer.recompute = recompute
        policy.zero_grad()
        sizes: list[int] = []

        def note(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = policy.outputs(tokens, mask).logprobs.sum()
        loss.backward()
        gradients.append([p.grad.clone() for p in policy.transformer.parameters()])
        kept.append(sum(sizes))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert kept[1] < 0.6 * kept[0]
