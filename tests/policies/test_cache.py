"""Whatever a cache is shown, its answers are those of a pass without one; no work is lost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import TransformerConfig, TransformerPolicy
from policies.cache import WORTH_A_PASS
from textenv.vector import TextVectorEnv

torch.set_num_threads(1)
VOCAB, ROWS, CAPACITY = 5, 4, 24  # few tokens, so that rows share beginnings by chance too
CONFIG = TransformerConfig(vocab_size=VOCAB, context=CAPACITY, n_layer=2, n_head=2, n_embd=16)


def strong_policy(config=CONFIG):
    """A policy whose hidden states depend on every token, position and weight."""
    policy = TransformerPolicy(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


BASE = strong_policy()


def padded(texts, capacity=CAPACITY, pad=VOCAB):
    observations = np.full((len(texts), capacity), pad)
    for row, text in enumerate(texts):
        observations[row, : len(text)] = text
    return observations


def uncached(policy, texts):
    """Last hidden states by one plain causal pass."""
    lengths = torch.tensor([len(text) for text in texts])
    with torch.no_grad():
        hidden = policy.hidden_states(torch.tensor([t for text in texts for t in text]), lengths)
    return hidden[lengths.cumsum(0) - 1]


def assert_agrees(policy, cache, texts):
    cached = policy.last_hidden(padded(texts), cache)
    expected = uncached(policy, texts)
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=0)
    with torch.inference_mode():
        logits = policy.logits(cached), policy.logits(expected)
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


# --- equality under everything that can happen to a row -------------------------------------------


def append(texts, row, other, tokens):
    texts[row] = (texts[row] + tokens)[:CAPACITY]


def restart(texts, row, other, tokens):
    texts[row] = tokens


def back_to_a_prefix(texts, row, other, tokens):
    texts[row] = (texts[row][: len(tokens)] + tokens[:1])[:CAPACITY]


def branch(texts, row, other, tokens):
    texts[row] = (texts[other][: 2 * len(tokens)] + tokens)[:CAPACITY]


def take_over(texts, row, other, tokens):
    texts[row] = list(texts[other])


def swap(texts, row, other, tokens):
    texts[row], texts[other] = texts[other], texts[row]


def fill(texts, row, other, tokens):
    texts[row] = (texts[row] + tokens * CAPACITY)[:CAPACITY]


def share(texts, row, other, tokens):
    texts[:] = [(tokens * 3)[:CAPACITY] for _ in texts]


def stay(texts, row, other, tokens):
    pass


EVENTS = [append, append, restart, back_to_a_prefix, branch, take_over, swap, fill, share, stay]
tokens_st = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12)
event_st = st.tuples(
    st.sampled_from(EVENTS), st.integers(0, ROWS - 1), st.integers(0, ROWS - 1), tokens_st
)


def small_gradients(policy):
    for parameter in policy.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)


def optimise(policy, optimizer, **options):
    small_gradients(policy)
    optimizer(policy.parameters(), lr=0.01, **options).step()


def adam(policy):
    optimise(policy, torch.optim.Adam)


def foreach(policy):
    optimise(policy, torch.optim.AdamW, foreach=True)


def fused(policy):
    optimise(policy, torch.optim.Adam, fused=True)


class Silent(torch.optim.Optimizer):
    """Writes as kernels do that are not torch's, without raising version counters."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.detach().numpy()[...] -= group["lr"] * parameter.grad.sign().numpy()


def kernels_of_its_own(policy):
    optimise(policy, Silent)


def by_hand(policy):
    with torch.no_grad():
        policy.transformer.blocks[0].mlp_in.bias += 0.1


def load(policy):
    policy.load_state_dict({k: v + 0.01 for k, v in policy.state_dict().items()})


def to_and_from_a_vector(policy):
    vector = torch.nn.utils.parameters_to_vector(policy.parameters())
    torch.nn.utils.vector_to_parameters(vector.detach() * 1.01, policy.parameters())


def no_change(policy):
    pass


CHANGES = [adam, foreach, fused, kernels_of_its_own, by_hand, load, to_and_from_a_vector]


@settings(max_examples=100, deadline=None)
@given(
    starts=st.lists(tokens_st, min_size=ROWS, max_size=ROWS),
    steps=st.lists(
        st.tuples(
            st.lists(event_st, min_size=1, max_size=4), st.sampled_from([no_change] * 8 + CHANGES)
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_cached_equals_uncached(starts, steps):
    policy = TransformerPolicy(CONFIG)
    policy.load_state_dict(BASE.state_dict())
    cache = policy.new_cache(ROWS)
    texts = list(starts)
    assert_agrees(policy, cache, texts)
    for events, change in steps:
        for event, *where in events:
            event(texts, *where)
        change(policy)
        assert_agrees(policy, cache, texts)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_drop_the_cache(change):
    policy = strong_policy()
    cache = policy.new_cache(ROWS)
    texts = [[0, 1, 2, 3, 4, 3, 2, 1]] * ROWS
    before = policy.last_hidden(padded(texts), cache).clone()
    change(policy)
    assert_agrees(policy, cache, texts)
    assert (policy.last_hidden(padded(texts), cache) - before).abs().max() > 1e-4


def test_writes_that_leave_no_trace_need_clear():
    policy = strong_policy()
    cache = policy.new_cache(1)
    policy.last_hidden(padded([[0, 1, 2, 3]]), cache)
    policy.transformer.token_embedding.weight.data.mul_(2.0)
    policy.transformer.blocks[0].mlp_in.weight.data.mul_(2.0)
    cache.clear()
    assert_agrees(policy, cache, [[0, 1, 2, 3]])


def test_nan_weights_leave_nothing_behind():
    policy = strong_policy()
    cache = policy.new_cache(ROWS)
    texts = [[0, 1, 2, 3], [4], [1, 1, 1], list(range(5)) * 4]
    good = {name: weight.clone() for name, weight in policy.state_dict().items()}
    for parameter in policy.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    assert policy.last_hidden(padded(texts), cache).isnan().all()
    policy.load_state_dict(good)
    assert_agrees(policy, cache, texts)
    assert_agrees(policy, cache, [text[:2] for text in texts])


@pytest.mark.parametrize("length", [1, 2, CAPACITY - 1, CAPACITY])
def test_rows_without_any_padding(length):
    policy = strong_policy()
    cache = policy.new_cache(ROWS, capacity=length)
    generator = np.random.default_rng(0)
    for _ in range(3):
        texts = generator.integers(VOCAB, size=(ROWS, length)).tolist()
        for _ in range(2):  # the second time everything is known
            cached = policy.last_hidden(np.array(texts), cache)
            torch.testing.assert_close(cached, uncached(policy, texts), atol=1e-5, rtol=0)


def test_a_text_that_grows_to_the_end_one_token_at_a_time():
    policy = strong_policy()
    cache = policy.new_cache(2)
    text = [i * i % VOCAB for i in range(CAPACITY)]
    for length in range(1, CAPACITY + 1):
        assert_agrees(policy, cache, [text[:length], text[: (length + 1) // 2]])


def test_a_pass_that_was_interrupted_leaves_nothing_stale(monkeypatch):
    policy = strong_policy()
    cache = policy.new_cache(2)
    old, new = [[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]], [[0, 1, 4, 4, 4], [2, 2, 2, 2, 2]]
    policy.last_hidden(padded(old), cache)

    def interrupted(store, plan):
        TransformerPolicy.extend(policy, store, plan)
        raise KeyboardInterrupt

    def never_begun(store, plan):
        raise KeyboardInterrupt

    for failing in (never_begun, interrupted):
        for shown_next in (old, new):
            assert_agrees(policy, cache, old)
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(policy, "extend", failing)
                policy.last_hidden(padded(new), cache)
            assert_agrees(policy, cache, shown_next)


def test_the_interruption_of_a_shared_beginning_leaves_nothing_stale(monkeypatch):
    policy = strong_policy()
    cache = policy.new_cache(2)
    prompt = [0, 1, 2, 3, 4] * 3

    def never_begun(store, plan):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(policy, "extend", never_begun)
        policy.last_hidden(padded([prompt, prompt]), cache)
    assert_agrees(policy, cache, [prompt, prompt])


def test_two_caches_of_one_policy_do_not_mix():
    policy = strong_policy()
    first, second = policy.new_cache(1), policy.new_cache(1)
    for length in range(1, 8):
        assert_agrees(policy, first, [[0, 1, 2, 3, 4, 0, 1][:length]])
        assert_agrees(policy, second, [[4, 3, 2, 1, 0, 4, 3][:length]])


def test_float_observations_are_the_same_as_integers():
    policy = strong_policy()
    observations = padded([[0, 1, 2], [3, 4]])
    expected = policy.last_hidden(observations)
    for same in (observations.astype(np.float32), torch.from_numpy(observations).float()):
        assert torch.equal(policy.last_hidden(same), expected)


# --- what is encoded ------------------------------------------------------------------------------


class Shown:
    """Shows texts to a cache and tells how many tokens each showing encoded."""

    def __init__(self, rows):
        self.policy = BASE
        self.cache = BASE.new_cache(rows)

    def __call__(self, *texts):
        before = self.cache.encoded_tokens
        assert_agrees(self.policy, self.cache, [list(text) for text in texts])
        return self.cache.encoded_tokens - before


def test_a_step_encodes_one_token_a_row():
    show = Shown(2)
    assert show([0, 1, 2], [3, 4]) == 5
    assert show([0, 1, 2, 3], [3, 4, 0]) == 2
    assert show([0, 1, 2, 3, 4], [3, 4, 0, 1]) == 2


def test_the_last_token_is_encoded_anew_and_nothing_else():
    show = Shown(2)
    show([0, 1, 2], [3, 4])
    assert show([0, 1, 2], [3, 4]) == 2
    assert show([0, 1], [3]) == 2  # back to prefixes


def test_only_what_differs_is_encoded():
    show = Shown(2)
    show([0, 1, 2, 3], [4, 4])
    assert show([0, 1, 4, 4, 4], [4, 4, 1, 2, 3, 0]) == 3 + 4  # a detour and a jump
    assert show([0, 1, 4, 4, 4], [3]) == 1 + 1  # a restart beside a repetition


def test_a_branch_takes_what_the_other_row_has():
    show = Shown(3)
    show([0, 1, 2, 3, 4], [1], [2])
    assert show([0, 1, 2, 3, 4], [0, 1, 2, 3, 0], [0, 1]) == 1 + 1 + 1


def test_a_row_may_take_another_ones_text_while_that_goes_elsewhere():
    show = Shown(2)
    show([0, 1, 2, 3, 4, 0], [1])
    assert show([2, 2, 2], [0, 1, 2, 3, 4, 0, 1]) <= 3 + 7


def test_a_group_encodes_its_prompt_once_where_that_is_worth_a_pass():
    assert WORTH_A_PASS == 16
    prompt = [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert Shown(4)(prompt, prompt, prompt, prompt) == 8 + 4
    other = [4, *prompt[1:]]
    assert Shown(4)(prompt, other, other, prompt) == 2 * 8 + 4  # 2 * 8 tokens are saved
    assert Shown(4)(*[prompt[:6]] * 4) == 4 * 6  # 3 * 5 would be


def test_groups_that_begin_alike_encode_that_once_too():
    examples = [0, 1, 2, 3, 4, 0, 1, 2, 3]
    one, other = [*examples, *[4] * 8], [*examples, *[2] * 8]
    # The first row; what the other group has for itself; the last token of each row.
    assert Shown(8)(*[one] * 4, *[other] * 4) == 16 + 7 + 8


def test_rows_that_only_begin_alike_share_the_beginning():
    show = Shown(3)
    prompt = ([0, 1, 2, 3, 4] * 3)[:10]
    # The first row's 12 tokens up to its last one; of the others, what comes after the prompt.
    assert show([*prompt, 0, 1, 2], [*prompt, 1, 2], [*prompt, 2]) == 12 + 1 + 2 + 1


class FreshPrompts:
    """Prompts that begin with a different token each time, so that nothing can be taken over."""

    def __init__(self, vocab_size):
        self.lengths = []
        self.vocab_size = vocab_size

    def draw(self, seeds):
        from textenv.prompts import Prompt

        made = []
        for seed in seeds.tolist():
            self.lengths.append(2 + seed % 9)
            first = len(self.lengths) % self.vocab_size
            made.append(Prompt("", tokens=np.full(self.lengths[-1], first)))
        return made


def test_a_rollout_encodes_every_token_once():
    prompts = FreshPrompts(257)
    envs = TextVectorEnv(
        6,
        prompts=prompts,
        reward=lambda episodes: [0.0] * len(episodes),
        max_prompt_tokens=10,
        max_new_tokens=8,
        stop_tokens=list(range(64)),  # a quarter of all choices end an answer
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    cache = policy.new_cache(6)
    observations, _ = envs.reset(seed=0)
    expected = sum(prompts.lengths)
    for step in range(60):
        shown = len(prompts.lengths)
        actions = policy.act(observations, cache).actions
        assert cache.encoded_tokens == expected, step
        observations, _, terminated, _, _ = envs.step(actions)
        expected += sum(prompts.lengths[shown:])  # each restarted row its prompt,
        expected += int((~terminated).sum())  # each of the others its new token
    assert len(prompts.lengths) > 70


def test_a_group_that_ends_at_different_times_encodes_each_prompt_once():
    """Rows that come to a prompt later take it from those that came first."""
    envs = TextVectorEnv(
        3,
        prompts=[{"tokens": [i] * 12} for i in range(200)],
        reward=lambda episodes: [0.0] * len(episodes),
        max_new_tokens=30,
        stop_tokens=[255],
        group_size=3,
    )
    policy = TransformerPolicy.for_env(envs, n_layer=1, n_head=1, n_embd=8)
    cache = policy.new_cache(3)
    observations, _ = envs.reset(seed=1)

    def encoded(actions):
        nonlocal observations
        before = cache.encoded_tokens
        policy.act(observations, cache)
        observations, *_ = envs.step(actions)
        return cache.encoded_tokens - before

    assert encoded([1, 2, 255]) == 11 + 3  # the first prompt
    assert encoded([255, 3, 7]) == 2 + 12  # row 2 is alone with the second prompt
    assert encoded([9, 255, 8]) == 1 + 1 + 1  # row 0 takes it over
    assert encoded([9, 10, 8]) == 1 + 1 + 1  # and so does row 1


def test_changed_weights_are_encoded_anew():
    policy = strong_policy()
    cache = policy.new_cache(1)
    policy.last_hidden(padded([[0, 1, 2, 3]]), cache)
    adam(policy)
    policy.last_hidden(padded([[0, 1, 2, 3]]), cache)
    assert cache.encoded_tokens == 8


# --- some rows ------------------------------------------------------------------------------------

some_st = st.lists(st.tuples(event_st, st.sets(st.integers(0, ROWS - 1), min_size=1)), max_size=15)


@given(events=some_st, start=st.lists(tokens_st, min_size=ROWS, max_size=ROWS))
@settings(max_examples=40, deadline=None)
def test_some_rows_of_a_cache_agree_with_uncached_passes(events, start):
    """Whoever takes part, in whatever order, the results are those of a pass without a cache."""
    texts = [list(text) for text in start]
    cache = BASE.new_cache(ROWS, CAPACITY)
    for (event, row, other, tokens), rows in events:
        event(texts, row, other, tokens)
        some = np.array(sorted(rows, reverse=row % 2 == 0))
        hidden = BASE.last_hidden(padded([texts[i] for i in some]), cache.some(some))
        expected = uncached(BASE, [texts[i] for i in some])
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)
    assert_agrees(BASE, cache, texts)


def test_rows_that_wait_cost_nothing_and_keep_what_they_have():
    texts = [[i, 1, 2, 3, i] for i in range(ROWS)]
    cache = BASE.new_cache(ROWS, CAPACITY)
    assert_agrees(BASE, cache, texts)
    whole = cache.encoded_tokens
    some = cache.some(np.array([1, 3]))
    for step in range(4):
        for row in (1, 3):
            texts[row].append(step)
        BASE.last_hidden(padded([texts[1], texts[3]]), some)
    assert (some.shape, some.encoded_tokens) == ((2, CAPACITY), 2 * 4)
    assert_agrees(BASE, cache, texts)
    assert cache.encoded_tokens == whole + ROWS


def test_some_rows_notice_changed_weights():
    policy = strong_policy()
    texts = [[i, 1, 2] for i in range(ROWS)]
    cache = policy.new_cache(ROWS, CAPACITY)
    assert_agrees(policy, cache, texts)
    some = cache.some(np.array([2]))
    adam(policy)
    hidden = policy.last_hidden(padded(texts[2:3]), some)
    torch.testing.assert_close(hidden, uncached(policy, texts[2:3]), atol=1e-5, rtol=0)
    assert_agrees(policy, cache, texts)
