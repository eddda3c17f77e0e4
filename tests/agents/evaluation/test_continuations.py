import math

import pytest
import torch
from text_policies import CONTEXT, KINDS, shaken, text_policy
from tokenizer_kinds import CORPUS, byte_level, tokenizer_of_kind

from agents.evaluation import continuations
from agents.evaluation.continuations import (
    beginning,
    fit_pair,
    pair_tokens,
    rolling_windows,
    score_continuations,
    score_texts,
    score_tokens,
    text_perplexities,
)
from policies import EncoderDecoderPolicy, TransformerConfig, TransformerPolicy
from textenv.errors import PromptTooLongError, TokenizerError
from textenv.tokenizers import HuggingFaceTokenizer, encode_prompt

torch.set_num_threads(1)
PAIRS = [
    ("The cat sat", " on the mat"),
    ("The cat sat", " on the dog"),
    ("The cat sat on", " the"),
    ("a b", " ab the other"),
    ("The cat sat", " on the mat"),
    ("ab", "."),
]


@pytest.fixture(scope="module", params=KINDS)
def policy(request):
    return text_policy(request.param)


def by_step(policy, prompt, said):
    """Log-probability and greedy flag of a continuation, one step of the policy a token."""
    logprob, greedy, row = 0.0, True, list(prompt)
    for token in said:
        with torch.inference_mode():
            logits = policy.choices(policy.last_hidden([row]))[0].double()
        logprob += float(logits.log_softmax(-1)[token])
        greedy &= int(logits.argmax()) == token
        row.append(token)
    return logprob, greedy


def test_scores_are_those_of_one_step_a_token(policy, monkeypatch):
    encoded = [pair_tokens(policy, *pair) for pair in PAIRS]
    whole = score_continuations(policy, PAIRS)
    for (prompt, said), scored in zip(encoded, whole, strict=True):
        logprob, greedy = by_step(policy, prompt, said)
        assert scored.logprob == pytest.approx(logprob, abs=1e-3)
        assert scored.greedy == greedy and scored.tokens == len(said)
    monkeypatch.setattr(continuations, "PLACES_AT_ONCE", 1)  # a row a pass
    alone = score_continuations(policy, PAIRS)
    assert [s.logprob for s in alone] == pytest.approx([s.logprob for s in whole], abs=1e-4)


def test_what_the_policy_would_write_is_greedy(policy):
    prompt, _ = pair_tokens(policy, "The cat", " sat")
    said = []
    for _ in range(3):
        with torch.inference_mode():
            said.append(int(policy.choices(policy.last_hidden([[*prompt, *said]])).argmax()))
    other = [*said[:-1], (said[-1] + 1) % policy.vocab_size]
    assert [s.greedy for s in score_tokens(policy, [(prompt, said), (prompt, other)])] == [
        True,
        False,
    ]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_scores_are_those_of_transformers_own_forward(kind):
    policy = text_policy(kind)
    model, tokenizer = policy.model, policy.transformers_tokenizer
    for prompt, said in PAIRS:
        whole = tokenizer(prompt + said, return_tensors="pt").input_ids
        border = len(tokenizer(prompt).input_ids)
        with torch.no_grad():
            logprobs = model(whole).logits[0].log_softmax(-1)
        chosen = logprobs[border - 1 : -1].gather(1, whole[0, border:, None])
        (scored,) = score_continuations(policy, [(prompt, said)])
        assert scored.logprob == pytest.approx(float(chosen.sum()), abs=1e-3)


def test_scores_of_an_encoder_decoder_are_those_of_transformers_loss():
    policy = text_policy("t5")
    tokenizer = policy.transformers_tokenizer
    prompt, said = "The cat sat", " on the mat"
    source = torch.tensor([tokenizer.encode(prompt)])
    assert source[0, -1] == tokenizer.eos_token_id
    labels = torch.tensor([tokenizer.encode(said, add_special_tokens=False)])
    with torch.no_grad():
        loss = policy.model(input_ids=source, labels=labels).loss
    (scored,) = score_continuations(policy, [(prompt, said)])
    assert scored.logprob == pytest.approx(-float(loss) * labels.numel(), abs=1e-3)


def test_a_prompt_is_encoded_once_for_its_continuations(monkeypatch):
    policy = text_policy("gpt2")
    read = []
    inner = policy.decode
    monkeypatch.setattr(policy, "decode", lambda *a: read.append(a[0].numel()) or inner(*a))
    prompt = list(range(2, 18))
    score_tokens(policy, [(prompt, [token, 5]) for token in range(30, 40)])
    assert read == [len(prompt) + 10]


def test_equal_pairs_are_read_once_and_progress_counts_what_is_read():
    policy, seen = text_policy("ours"), []
    scored = score_continuations(policy, PAIRS * 3, on_scored=seen.append)
    assert seen == [len(set(PAIRS))]
    assert scored[0] == scored[4] == scored[len(PAIRS)]


def test_white_space_at_the_end_of_a_prompt_belongs_to_the_continuation():
    policy = text_policy("gpt2")
    assert pair_tokens(policy, "The cat ", "sat") == pair_tokens(policy, "The cat", " sat")
    ids = [*pair_tokens(policy, "The cat", " sat")[0], *pair_tokens(policy, "The cat", " sat")[1]]
    assert ids == encode_prompt(policy.tokenizer, "The cat sat")


@pytest.mark.parametrize("kind", ["trained", "byte level", "space marks", "byte fallback"])
def test_every_character_of_a_continuation_is_scored(kind):
    tokenizer = tokenizer_of_kind(kind)
    shape = TransformerConfig(tokenizer.vocab_size, 64, n_layer=1, n_head=1, n_embd=4)
    policy = TransformerPolicy(shape, tokenizer=tokenizer)
    text = CORPUS[0][:40]
    for border in range(1, len(text)):
        before, said = pair_tokens(policy, text[:border], text[border:])
        stripped = text[:border].rstrip()
        assert before == (encode_prompt(tokenizer, stripped) or beginning(policy))
        assert tokenizer.decode([*before, *said]).lstrip() == text


def test_a_continuation_is_encoded_by_itself_where_a_token_reaches_across_the_border():
    made = byte_level()
    tokenizer = HuggingFaceTokenizer(made, "byte level", "</s>")
    shape = TransformerConfig(tokenizer.vocab_size, CONTEXT, n_layer=1, n_head=1, n_embd=4)
    policy = TransformerPolicy(shape, tokenizer=tokenizer)
    whole = tokenizer.encode("the")
    assert len(whole) < len([*tokenizer.encode("t"), *tokenizer.encode("he")])  # one token across
    before, said = pair_tokens(policy, "t", "he")
    assert (before, said) == (tokenizer.encode("t"), tokenizer.encode("he"))


def test_an_empty_prompt_is_the_beginning_of_a_text():
    assert pair_tokens(text_policy("ours"), "", "ab")[0] == [
        text_policy("ours").tokenizer.stop_token
    ]
    llama = text_policy("llama")
    assert pair_tokens(llama, " ", "ab")[0] == [llama.transformers_tokenizer.bos_token_id]
    gpt2 = text_policy("gpt2")  # its tokenizer names a beginning and does not write it
    assert beginning(gpt2) == [gpt2.transformers_tokenizer.bos_token_id]
    bytes_alone = HuggingFaceTokenizer(byte_level(), "bytes", [])
    shape = TransformerConfig(bytes_alone.vocab_size, CONTEXT, n_layer=1, n_head=1, n_embd=4)
    with pytest.raises(TokenizerError, match="nothing that begins a text: give prompts"):
        score_texts(TransformerPolicy(shape, tokenizer=bytes_alone), ["ab"])


def test_what_cannot_be_scored_is_named():
    policy = text_policy("ours")
    with pytest.raises(ValueError, match="the continuation of pair 1 has no token"):
        score_continuations(policy, [("a", "b"), ("a", "")])
    with pytest.raises(ValueError, match="the prompt of pair 0 has no token"):
        score_tokens(policy, [([], [1])])
    with pytest.raises(PromptTooLongError, match=f"pair 0 has {CONTEXT + 1} tokens to read"):
        score_tokens(policy, [([1] * CONTEXT, [2, 3])])
    with pytest.raises(PromptTooLongError, match="score long texts with score_texts"):
        fit_pair(([1], [2] * (CONTEXT + 1)), CONTEXT)


def test_a_prompt_is_cut_to_what_fits():
    policy = text_policy("ours")
    pair = fit_pair((list(range(40)), [1, 2]), CONTEXT)
    assert pair == (list(range(40))[-(CONTEXT - 1) :], [1, 2])
    assert score_tokens(policy, [pair])[0].tokens == 2
    assert fit_pair(([5], [1] * CONTEXT), CONTEXT) == ([5], [1] * CONTEXT)


# ------------------------------------------------------------------------- long texts


@pytest.mark.parametrize("context", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 8, 20, 22])
def test_windows_are_those_of_lm_evaluation_harness(context, length):
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    tokens = list(range(1, length + 1))
    theirs = map(make_disjoint_window, get_rolling_token_windows(tokens, 0, context, 1))
    assert list(rolling_windows(tokens, [0], context)) == list(theirs)


def test_windows_of_an_encoder_decoder_all_begin_with_its_source():
    windows = list(rolling_windows([1, 2, 3, 4, 5], [8, 9], 4, kept=2))
    assert windows == [([8, 9], [1, 2]), ([8, 9, 2], [3, 4]), ([8, 9, 3, 4], [5])]
    assert all(len(prompt) + len(said) - 1 <= 4 for prompt, said in windows)


def test_a_long_text_is_the_sum_of_its_windows(policy):
    text = CORPUS[0][:160] * 2
    ids = policy.tokenizer.encode(text)
    assert len(ids) > 2 * CONTEXT
    begins = beginning(policy)
    kept = len(begins) if isinstance(policy, EncoderDecoderPolicy) else 0
    total = sum(by_step(policy, *pair)[0] for pair in rolling_windows(ids, begins, CONTEXT, kept))
    scored, empty = score_texts(policy, [text, ""])
    assert scored.logprob == pytest.approx(total, abs=5e-3) and scored.tokens == len(ids)
    assert empty == (0, 0, True)


def test_perplexities_are_a_token_a_word_and_a_byte():
    policy = text_policy("ours")
    texts = ["The cat sat", "naïve café"]
    logprob = sum(s.logprob for s in score_texts(policy, texts))
    tokens = sum(len(policy.tokenizer.encode(text)) for text in texts)
    found = text_perplexities(policy, texts)
    expected = [math.exp(-logprob / n) for n in (tokens, 5, 11 + 12)]
    assert found[:3] == pytest.approx(expected)
    assert 2**found.bits_per_byte == pytest.approx(found.per_byte)
    with pytest.raises(ValueError, match="the texts have no token"):
        text_perplexities(policy, [""])


def test_uniform_choices_have_the_vocabulary_as_perplexity():
    policy = text_policy("ours")
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    used = policy.vocab_size - len(policy.tokenizer.unused_tokens)
    found = text_perplexities(policy, ["The cat sat on the mat"])
    assert found.per_token == pytest.approx(used, rel=1e-5)
    shaken(policy)
