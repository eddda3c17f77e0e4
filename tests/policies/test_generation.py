import warnings

import numpy as np
import pytest
import torch
from letters import Letters

from policies import TransformerConfig, TransformerPolicy, generate, generate_tokens
from textenv import load_tokenizer
from textenv.errors import (
    EmptyPromptsError,
    NoStopTokenWarning,
    PromptTooLongError,
    TokenizerError,
)

torch.set_num_threads(1)
VOCAB = 9
STOP = 8
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 0, 1], [3, 3], [0, 1, 2, 3], [2], [6, 5], [1, 2, 3]]


def make_policy(tokenizer=None, context=30, scale=0.4):
    config = TransformerConfig(VOCAB, context, n_layer=2, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=tokenizer)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture(scope="module")
def policy():
    return make_policy(Letters(VOCAB - 1, stop=True))


def greedy(policy, prompt, max_new_tokens, stops=(STOP,)):
    """The likeliest continuation, from the definition."""
    text = list(prompt)
    while len(text) < len(prompt) + max_new_tokens:
        with torch.no_grad():
            hidden = policy.hidden_states(torch.tensor(text), torch.tensor([len(text)]))[-1:]
            text.append(int(policy.logits(hidden).argmax()))
        if text[-1] in stops:
            break
    return text[len(prompt) :]


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_continuous_batching_gives_the_answers_of_one_at_a_time(policy, batch_size):
    answers = generate_tokens(policy, PROMPTS, 12, temperature=0, batch_size=batch_size)
    assert answers == [greedy(policy, prompt, 12) for prompt in PROMPTS]
    assert len({len(answer) for answer in answers}) > 2  # some stopped, at different times


def test_a_stop_token_ends_an_answer_and_belongs_to_it(policy):
    answers = generate_tokens(policy, PROMPTS, 20, generator=np.random.default_rng(0))
    stopped = [answer for answer in answers if answer[-1] == STOP]
    assert 0 < len(stopped)
    for answer in answers:
        assert STOP not in answer[:-1]
        assert len(answer) == 20 or answer[-1] == STOP


def test_stop_tokens_can_be_chosen(policy):
    for stops in ([0, 5], []):
        answers = generate_tokens(policy, PROMPTS, 12, temperature=0, stop_tokens=stops)
        assert answers == [greedy(policy, prompt, 12, stops) for prompt in PROMPTS]


def test_texts_come_without_the_stop_token(policy):
    for stops in (None, [2, 5], []):
        texts = generate(policy, ["bcd", "fgh"], 12, temperature=0, stop_tokens=stops)
        for prompt, text in zip(([1, 2, 3], [5, 6, 7]), texts, strict=True):
            ends = (STOP,) if stops is None else stops
            ids = greedy(policy, prompt, 12, ends)
            assert text == policy.tokenizer.decode(ids[:-1] if ids[-1] in ends else ids)
    assert policy.generate([[1, 2, 3]], 12, temperature=0) == generate(
        policy, ["bcd"], 12, temperature=0
    )


def test_no_prompts_no_answers(policy):
    assert generate_tokens(policy, []) == []


def test_the_whole_context_can_be_used():
    policy = make_policy(context=10)
    (answer,) = generate_tokens(policy, [[1, 2, 3, 4]], 7, stop_tokens=[])
    assert len(answer) == 7


# --- sampling -------------------------------------------------------------------------------------


def test_sampling_follows_the_distribution(policy):
    draws = 4000
    answers = generate_tokens(
        policy, [[1, 2]] * draws, 1, temperature=0.7, generator=np.random.default_rng(0)
    )
    counts = np.bincount([answer[0] for answer in answers], minlength=VOCAB)
    with torch.no_grad():
        hidden = policy.hidden_states(torch.tensor([1, 2]), torch.tensor([2]))[-1:]
        expected = (policy.logits(hidden)[0] / 0.7).softmax(-1).numpy()
    errors = np.sqrt(expected * (1 - expected) / draws)
    assert (abs(counts / draws - expected) < 5 * errors + 1e-9).all()


def test_masks_and_top_k_limit_the_choice(policy):
    allowed = np.zeros(VOCAB, dtype=bool)
    allowed[[2, 3, 5]] = True
    answers = generate_tokens(policy, PROMPTS, 15, temperature=3.0, action_masks=allowed)
    assert {token for answer in answers for token in answer} == {2, 3, 5}
    likeliest = generate_tokens(policy, PROMPTS, 12, temperature=0)
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        assert generate_tokens(policy, PROMPTS, 12, **narrow) == likeliest


def test_an_environments_masks_are_given_as_the_environment_takes_them(policy):
    drawn = {"temperature": 5.0, "max_new_tokens": 6}
    answers = generate_tokens(policy, PROMPTS * 9, forbidden_tokens=[0, 3], **drawn)
    assert {t for a in answers for t in a} == {1, 2, 4, 5, 6, 7, STOP}
    answers = generate_tokens(policy, PROMPTS * 9, allowed_tokens=[2, 5], **drawn)
    assert {t for a in answers for t in a} == {2, 5, STOP}
    answers = generate_tokens(policy, PROMPTS * 9, min_new_tokens=3, **drawn)
    assert {len(a) for a in answers} == {4, 5, 6}  # the stop token comes behind three others
    texts = policy.generate(["ab"] * 20, 6, allowed_tokens=[2, 5], temperature=5.0)
    assert {letter for text in texts for letter in text} == {"c", "f"}


def test_masks_that_leave_nothing_are_refused(policy):
    with pytest.raises(ValueError, match="no token is left to choose"):
        generate_tokens(policy, PROMPTS, 4, allowed_tokens=[], forbidden_tokens=[STOP])
    with pytest.raises(ValueError, match="forbidden_tokens holds 9"):
        generate_tokens(policy, PROMPTS, 4, forbidden_tokens=[VOCAB])


def test_generation_without_a_stop_token_is_spoken_of():
    endless = make_policy(Letters(VOCAB))
    with pytest.warns(NoStopTokenWarning, match="'letters' has no stop token"):
        endless.generate(["ab"], 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(endless.generate(["ab"], 3, stop_tokens=())[0]) == 3


def test_a_generator_makes_answers_repeatable(policy):
    first, same, other = (
        generate_tokens(policy, PROMPTS, 12, generator=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert first == same != other


# --- streaming ------------------------------------------------------------------------------------


def test_tokens_are_streamed_as_they_come(policy):
    streamed = [[] for _ in PROMPTS]
    order = []

    def on_token(number, token):
        streamed[number].append(token)
        order.append(number)

    answers = generate_tokens(
        policy, PROMPTS, 6, temperature=0, batch_size=2, stop_tokens=[], on_token=on_token
    )
    assert streamed == answers
    assert order[:12] == [0, 1] * 6  # two rows at a time
    assert order[12:14] == [2, 3]  # both take up the next prompts at once


# --- what is refused ------------------------------------------------------------------------------


def test_a_prompt_that_does_not_fit():
    policy = make_policy(context=10)
    with pytest.raises(PromptTooLongError, match=r"prompt 1 has 5 tokens; with 7 .* room for 4"):
        generate_tokens(policy, [[1], [1, 2, 3, 4, 5]], 7)


def test_an_empty_prompt(policy):
    with pytest.raises(EmptyPromptsError, match="prompt 1 has no token"):
        generate_tokens(policy, [[1], []], 5)


def test_a_policy_without_a_tokenizer():
    with pytest.raises(TokenizerError, match=r"has no tokenizer: set policy\.tokenizer"):
        make_policy().generate(["abc"])


@pytest.mark.parametrize(
    "numbers",
    [
        {"max_new_tokens": 0},
        {"batch_size": 0},
        {"temperature": -0.5},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_numbers_out_of_range(policy, numbers):
    ((name, value),) = numbers.items()
    with pytest.raises(ValueError, match=rf"{name} (is )?{value}"):
        generate_tokens(policy, PROMPTS, **({"max_new_tokens": 5} | numbers))


# --- several answers, and the rules of an environment ---------------------------------------------


def test_several_answers_to_each_prompt_stand_side_by_side(policy):
    alone = generate_tokens(
        policy, [p for p in PROMPTS for _ in range(3)], 9, generator=np.random.default_rng(4)
    )
    together = generate_tokens(policy, PROMPTS, 9, n=3, generator=np.random.default_rng(4))
    assert together == alone and len({tuple(a) for a in together[:3]}) > 1
    texts = policy.generate(["bcd", "e"], 9, n=4, generator=np.random.default_rng(0))
    ids = generate_tokens(policy, [[1, 2, 3], [4]], 9, n=4, generator=np.random.default_rng(0))
    shown = [policy.tokenizer.decode(a[:-1] if a[-1] == STOP else a) for a in ids]
    assert texts == shown and len(texts) == 8
    with pytest.raises(ValueError, match="n is 0"):
        policy.generate(["a"], n=0)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_answers_to_one_prompt_encode_it_once(monkeypatch, batch_size):
    policy = make_policy(Letters(VOCAB - 1, stop=True), context=64)
    made = []
    new_cache = policy.new_cache
    monkeypatch.setattr(policy, "new_cache", lambda *a: made.append(new_cache(*a)) or made[-1])
    rng = np.random.default_rng(0)
    prompts = rng.integers(VOCAB - 1, size=(5, 40)).tolist()
    answers = generate_tokens(policy, prompts, 12, n=8, batch_size=batch_size, generator=rng)
    # The last token of a prompt is read for each answer: its hidden state is what is asked for.
    # Rows that wait for the others to finish read their last token again.
    chosen = sum(len(answer) - 1 for answer in answers)
    idle = 12 * batch_size
    assert made[0].encoded_tokens <= 5 * 39 + 5 * 8 + chosen + idle
    assert made[0].encoded_tokens >= 5 * 39 + 5 * 8 + chosen


RULES = {"min_new_tokens": 2, "forbidden_tokens": [0, 3], "stop_tokens": [5, STOP]}


def rules_env(**more):
    from textenv import TextEnv

    def nothing(episodes):
        return [0.0] * len(episodes)

    arguments = {"prompts": ["b", "eg"], "reward": nothing, "max_new_tokens": 7, **RULES, **more}
    return TextEnv(tokenizer=Letters(VOCAB - 1, stop=True), **arguments)


@pytest.mark.parametrize("more", [{}, {"allowed_tokens": [2, 4, 6]}])
def test_generation_under_an_environments_rules_is_the_environments_loop(policy, more):
    env = rules_env(**more)
    prompts = ["b", "eg", "cc", "f"] * 3
    answers = []
    generator = np.random.default_rng(7)
    for prompt in prompts:
        observation, info = env.reset(options={"prompt": prompt})
        chosen, over = [], False
        while not over:
            step = policy.act(
                observation[None], action_masks=info["action_mask"][None], generator=generator
            )
            chosen.append(int(step.actions[0]))
            observation, _, terminated, truncated, info = env.step(step.actions[0])
            over = terminated or truncated
        answers.append(chosen)
    ids = [[ord(c) - ord("a") for c in prompt] for prompt in prompts]
    same = generate_tokens(
        policy, ids, **env.answer_rules, batch_size=1, generator=np.random.default_rng(7)
    )
    assert same == answers
    assert {a[-1] for a in answers} & {5, STOP} and not {t for a in answers for t in a} & {0, 3}


def test_a_turn_has_its_own_budget_in_the_rules():
    from textenv import Reply, TextVectorEnv, World

    class Silent(World):
        def reply(self, turn, rng):
            return Reply()

    envs = TextVectorEnv(
        1,
        prompts=["b"],
        world=Silent,
        max_new_tokens=30,
        max_turn_tokens=4,
        tokenizer=Letters(VOCAB - 1, stop=True),
    )
    assert envs.answer_rules["max_new_tokens"] == 4
    assert envs.answer_rules["stop_tokens"] == (STOP,)


def test_masked_logprobs_are_those_of_what_may_be_chosen(policy):
    mask = np.zeros(VOCAB, dtype=bool)
    mask[[1, 4, STOP]] = True
    texts = np.full((6, 5), policy.pad_token)
    texts[:, :2] = [2, 3]
    step = policy.act(texts, action_masks=mask, generator=np.random.default_rng(0))
    with torch.no_grad():
        hidden = policy.hidden_states(torch.tensor([2, 3]), torch.tensor([2]))[-1:]
        logits = policy.logits(hidden)[0]
    expected = (logits - logits[mask].logsumexp(0)).numpy()
    np.testing.assert_allclose(step.logprobs, expected[step.actions], atol=1e-5)
    assert set(step.actions.tolist()) <= {1, 4, STOP}


def test_stop_strings_end_answers_as_in_an_environment():
    config = TransformerConfig(vocab_size=257, context=32, n_layer=1, n_head=2, n_embd=8)
    policy = TransformerPolicy(config, tokenizer=load_tokenizer("bytes"), seed=0)
    prompts = ["a", "bb", "ccc"] * 8
    options = {"max_new_tokens": 12, "stop_tokens": (), "stop_strings": ["e", "th"]}
    options["allowed_tokens"] = [*b"the "]
    ids = generate_tokens(
        policy, [[*p.encode()] for p in prompts], generator=np.random.default_rng(1), **options
    )
    texts = policy.generate(prompts, generator=np.random.default_rng(1), **options)
    ended = 0
    for answer, text in zip(ids, texts, strict=True):
        whole = bytes(answer).decode()
        ends = [whole.find(string) for string in ("e", "th") if string in whole]
        assert text == (whole[: min(ends)] if ends else whole)
        # Nothing is chosen behind the token that completes a string.
        assert "e" not in whole[:-1] and "th" not in whole[:-1]
        assert ends or len(answer) == 12
        ended += bool(ends)
    assert ended > 10


def test_stop_strings_wait_for_the_shortest_answer_and_need_a_tokenizer():
    config = TransformerConfig(vocab_size=257, context=32, n_layer=1, n_head=2, n_embd=8)
    policy = TransformerPolicy(config, tokenizer=load_tokenizer("bytes"), seed=0)
    options = {"max_new_tokens": 6, "stop_tokens": (), "allowed_tokens": [ord("e")]}
    (text,) = policy.generate(["a"], stop_strings=["e"], min_new_tokens=3, **options)
    assert text == "ee"  # the string that counts is the one that the third token completes
    policy.tokenizer = None
    with pytest.raises(TokenizerError, match="without stop_strings"):
        generate_tokens(policy, [[1]], stop_strings=["e"], **options)
