"""What prompts and answers read, with tokenizers of every kind."""

from functools import cache

import numpy as np
import pytest
from environments import single
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import BEGIN, CORPUS, END, KINDS, tokenizer_of_kind

from textenv.errors import PromptError, TokenizerError
from textenv.tokenizers import (
    HuggingFaceTokenizer,
    SourceTokenizer,
    decode_answer,
    decode_prompt,
    encode_answer,
    encode_prompt,
    prompt_frame,
    stop_tokens_of,
)
from textenv.tokenizers.texts import certain

BUDGET = 6
each_kind = pytest.mark.parametrize("kind", KINDS)
texts = st.lists(st.sampled_from(["the", " cat", " ", "a", "b", ".", "'s", "\n", "é", "你", "👩"]))
seeds = st.integers(0, 2**32 - 1)
tokenizer_of = cache(tokenizer_of_kind)


@cache
def environment(kind):
    """An environment of this kind, and the episodes that its reward has seen."""
    episodes = []

    def reward(some):
        episodes.extend(some)
        return [0.0] * len(some)

    tokenizer = tokenizer_of(kind)
    arguments = {"max_new_tokens": BUDGET, "max_prompt_tokens": 80, "prompts": [{"tokens": [0]}]}
    return single(tokenizer=tokenizer, reward=reward, render_mode="ansi", **arguments), episodes


def played(kind, options, seed):
    """The episode of random tokens after a start, and what was shown at its end."""
    env, episodes = environment(kind)
    try:
        env.reset(options=options)
    except (PromptError, TokenizerError):
        assume(False)  # empty, or with a character that the vocabulary lacks
    rng, over = np.random.default_rng(seed), False
    while not over:
        _, _, over, _, info = env.step(rng.integers(env.action_space.n))
    return episodes[-1], info["text"], env.render()


def check(episode, tokenizer):
    """Prompt and text together are what the ids say, up to a stop token."""
    before, _ = prompt_frame(tokenizer)
    prompt = episode.prompt_tokens.tolist()
    if before and tuple(prompt[: len(before)]) == before:
        prompt = prompt[len(before) :]
    answer = episode.tokens.tolist()
    if episode.finish_reason == "stop":
        assert answer.pop() in stop_tokens_of(tokenizer)
    whole, shown = tokenizer.decode([*prompt, *answer]), certain(tokenizer.decode(prompt))
    if not whole.startswith(shown):  # bytes behind bytes: the library gives all of them up
        assert episode.text == tokenizer.decode(answer)
    elif whole.startswith(episode.prompt):
        assert episode.prompt + episode.text == whole
    else:  # a prompt that the vocabulary spells otherwise, without capitals for one
        assert shown + episode.text == whole


@each_kind
@settings(deadline=None, max_examples=40)
@given(texts.map("".join), seeds)
def test_prompt_and_text_are_what_the_ids_say(kind, prompt, seed):
    if kind == "letters":
        prompt = "".join(filter(str.isascii, filter(str.isalpha, prompt)))
    episode, text, shown = played(kind, {"prompt": prompt}, seed)
    assert episode.prompt == prompt and text == episode.text
    assert shown == f"\x1b[2m{prompt}\x1b[0m{text}"
    check(episode, tokenizer_of(kind))


@each_kind
@settings(deadline=None, max_examples=40)
@given(seeds, seeds)
def test_a_prompt_of_any_ids_too(kind, one, other):
    tokenizer, rng = tokenizer_of(kind), np.random.default_rng(one)
    ids = rng.integers(tokenizer.vocab_size, size=rng.integers(1, 9))
    episode, text, _ = played(kind, {"tokens": ids}, other)
    assert text == episode.text
    check(episode, tokenizer)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith(("space", "byte f"))])
def test_a_space_before_the_first_word_is_kept(kind):
    """By hand: the ids of " cat" read "cat" by themselves, and " cat" behind another word."""
    tokenizer = tokenizer_of(kind)
    prompt, answer = encode_prompt(tokenizer, "the"), encode_answer(tokenizer, " cat")
    assert decode_answer(tokenizer, prompt, answer) == " cat"
    if "never" not in kind:
        assert tokenizer.decode(answer) == "cat"


SPELLING = [kind for kind in KINDS if not kind.startswith("word")]  # those keep no spaces


@pytest.mark.parametrize("kind", SPELLING)
@pytest.mark.parametrize("answer", [" sat", "sat", " a b", "ther", "a"])
def test_an_answer_survives_the_way_to_ids_and_back(kind, answer):
    tokenizer = tokenizer_of(kind)
    if kind == "letters":
        answer = answer.replace(" ", "")
    prompt = encode_prompt(tokenizer, "the" if kind == "letters" else "the cat")
    assert decode_answer(tokenizer, prompt, encode_answer(tokenizer, answer)) == answer


@pytest.mark.parametrize("kind", ["bytes", "trained", "byte level", "python"])
@given(st.text())
@settings(deadline=None, max_examples=30)
def test_where_pieces_join_answers_are_encoded_as_any_text(kind, text):
    tokenizer = tokenizer_of(kind)
    assert encode_answer(tokenizer, text) == tokenizer.encode(text)


def test_half_a_character_belongs_to_the_answer_that_completes_it():
    episode, text, _ = played("bytes", {"tokens": [104, 0xC3]}, 0)
    assert episode.prompt == "h"
    assert decode_answer(tokenizer_of("bytes"), [104, 0xC3], [0xA9]) == "é"
    assert text.startswith("\ufffd")


# --- how texts begin


BEGINNING = [kind for kind in KINDS if kind.endswith("beginning")]


@pytest.mark.parametrize("kind", BEGINNING)
def test_prompts_begin_as_the_library_begins_texts(kind):
    raw, tokenizer = KINDS[kind](), tokenizer_of(kind)
    ids = raw.encode("the cat").ids
    assert ids[0] == raw.token_to_id(BEGIN) and ids[-1] == raw.token_to_id(END)
    assert encode_prompt(tokenizer, "the cat") == ids[:-1]  # the answer goes on from there
    assert tokenizer.encode("the cat") == ids[1:-1]
    assert decode_prompt(tokenizer, ids[:-1]) == "the cat"
    observation, info = environment(kind)[0].reset(options={"prompt": "the cat"})
    assert observation[: len(ids) - 1].tolist() == ids[:-1] and info["prompt"] == "the cat"


@pytest.mark.parametrize("kind", BEGINNING)
def test_a_switch_leaves_the_beginning_out(kind):
    raw = KINDS[kind]()
    tokenizer = HuggingFaceTokenizer(raw, kind, END, bos=False)
    assert encode_prompt(tokenizer, "the cat") == tokenizer.encode("the cat")
    assert tokenizer.fingerprint == HuggingFaceTokenizer(raw).fingerprint  # one vocabulary


@pytest.mark.parametrize("kind", BEGINNING)
def test_the_beginning_comes_once(kind):
    """A chat template writes it into the text, or into the ids."""
    tokenizer = tokenizer_of(kind)
    once = encode_prompt(tokenizer, "the cat")
    assert encode_prompt(tokenizer, f"{BEGIN}the cat") == once
    observation, info = environment(kind)[0].reset(options={"prompt": {"tokens": once}})
    assert observation[: len(once)].tolist() == once and info["prompt"] == "the cat"


def test_an_empty_prompt_has_its_beginning():
    observation, info = environment(BEGINNING[0])[0].reset(options={"prompt": ""})
    assert observation[:2].tolist() == [0, 322] and info["prompt"] == ""


def test_an_encoder_decoders_answer_is_a_text_of_its_own():
    inner = tokenizer_of("space marks")
    source = SourceTokenizer(inner)
    prompt, answer = encode_prompt(source, "the cat"), inner.encode("the mat")
    assert decode_answer(source, prompt, answer) == "the mat"
    assert decode_prompt(source, prompt) == "the cat"


def test_the_corpus_has_every_letter_that_is_tried():
    assert set("the cats.b\né你") <= set("".join(CORPUS))
