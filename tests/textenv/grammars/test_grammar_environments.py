"""Environments whose answers keep to a grammar."""

import copy
import json
import pickle
import re
from dataclasses import replace

import gymnasium as gym
import jsonschema
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from tokenizer_kinds import KINDS, tokenizer_of_kind

import textenv
from benchmarks.grammar import SCHEMAS, walk
from textenv import TextEnv, TextVectorEnv
from textenv.errors import (
    GrammarError,
    MissingFileError,
    ResetOptionsError,
    TokenizerError,
)
from textenv.grammars import JsonSchema, Lark, OfRecord, load_grammar
from textenv.tokenizers import BytesTokenizer, CharacterTokenizer, train_bpe
from textenv.tokenizers.base import bytes_of_tokens

COUNT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
STOP = 256


def whole(episodes):
    return [float(episode.finish_reason == "stop") for episode in episodes]


def make(count=3, **arguments):
    chosen = {"grammar": JsonSchema(COUNT), "max_new_tokens": 12, "prompts": ["a", "bc"]}
    return TextVectorEnv(count, reward=whole, **{**chosen, **arguments})


def choices(infos, rng):
    return np.array([rng.choice(np.flatnonzero(row)) for row in infos["action_mask"]])


def type_out(envs, text):
    """The last step of typing `text` into every row, each byte a token."""
    for byte in text.encode():
        result = envs.step(np.full(envs.num_envs, byte))
    return result


# ---------------------------------------------------------------- what is promised


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_walks_give_valid_json(name):
    texts, reasons = walk(SCHEMAS[name], BytesTokenizer(), walks=8, budget=48)
    assert set(reasons) == {"stop"} and len(texts) >= 8
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMAS[name])


@pytest.mark.parametrize("name", ["tree", "optional", "any object", "map"])
def test_random_walks_of_words_give_valid_json(name):
    lines = ['{"v":1,"c":[{"v":-20,"c":[]},{"v":3,"c":[]}]}', '{"best":{"x":0,"y":1.5}}']
    # Tokens such as `{"v":`, which open more than one part at once.
    texts, reasons = walk(SCHEMAS[name], train_bpe(lines * 4, 280, pattern=".+"), walks=24)
    assert set(reasons) == {"stop"} and len(texts) >= 24
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMAS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_many_random_walks_give_valid_json(name):
    texts, reasons = walk(SCHEMAS[name], BytesTokenizer(), walks=500)
    assert set(reasons) == {"stop"} and len(texts) >= 500
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMAS[name])


def test_an_integer_may_be_minus_zero_and_jsonschema_agrees():
    envs = make(1, grammar=JsonSchema({"type": "integer"}))
    envs.reset(seed=0)
    type_out(envs, "-0")
    ended = envs.step(np.array([STOP]))[4]["final_info"]
    assert ended["finish_reason"][0] == "stop" and ended["text"][0] == "-0"
    jsonschema.validate(json.loads("-0"), {"type": "integer"})


@pytest.mark.parametrize("kind", [*KINDS])
def test_any_vocabulary_that_joins_bytes_writes_the_grammar(kind):
    tokenizer = tokenizer_of_kind(kind)
    if kind in ("letters", "word pieces", "word pieces, added tokens", "words", "python"):
        with pytest.raises(TokenizerError, match="bytes"):
            make(grammar="regex:a+b", tokenizer=tokenizer)
        return
    envs = make(8, grammar="regex:(the|a|ab| b)+(cat|b)?", tokenizer=tokenizer, prompts=["the"])
    _, infos = envs.reset(seed=0)
    rng, texts = np.random.default_rng(0), []
    while len(texts) < 20:
        _, _, over, _, infos = envs.step(choices(infos, rng))
        for row in np.flatnonzero(over):
            assert infos["final_info"]["finish_reason"][row] == "stop"
            texts.append(infos["final_info"]["text"][row])
    assert all(re.fullmatch("(the|a|ab| b)+(cat|b)?", text) for text in texts), texts


@pytest.mark.parametrize("kind", ["byte level, added tokens", "byte fallback", "trained"])
def test_no_special_token_is_ever_text(kind):
    tokenizer = tokenizer_of_kind(kind)
    envs = make(1, grammar=r"regex:(?s:.*)", tokenizer=tokenizer, prompts=["the"])
    mask = envs.reset(seed=0)[1]["action_mask"][0]
    text = np.array([b is not None for b in bytes_of_tokens(tokenizer)])
    assert set(np.flatnonzero(mask & ~text)) == {tokenizer.stop_token}
    words = [i for i, b in enumerate(bytes_of_tokens(tokenizer)) if b and b.isascii()]
    assert mask[words].all()


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if "byte" in k or "space" in k or k == "trained"]
)
def test_bytes_of_tokens_join_to_what_is_decoded(kind):
    tokenizer = tokenizer_of_kind(kind)
    of_ids = bytes_of_tokens(tokenizer)
    words = np.array([i for i, b in enumerate(of_ids) if b is not None])
    rng = np.random.default_rng(0)
    before = tokenizer.encode("the cat")
    known = tokenizer.decode(before)
    for _ in range(30):
        ids = rng.choice(words, 4).tolist()
        try:
            said = b"".join(of_ids[i] for i in ids).decode()
        except UnicodeDecodeError:  # pieces of characters
            continue
        assert tokenizer.decode([*before, *ids]) == known + said


# ---------------------------------------------------------------- ends


def test_what_the_grammar_cannot_take_ends_the_answer_unfinished():
    envs = make(4, group_size=1)
    envs.reset(seed=0)
    _, rewards, over, cut, infos = envs.step(np.array([ord("A"), ord("{"), STOP, ord("{")]))
    assert over.tolist() == [True, False, True, False] and not cut.any() and not rewards.any()
    ended = infos["final_info"]
    assert ended["finish_reason"][[0, 2]].tolist() == ["grammar_unfinished"] * 2
    assert ended["text"][[0, 2]].tolist() == ["A", ""]
    assert infos["action_mask"][:, ord("{")].tolist() == [True, False, True, False]


@pytest.mark.parametrize("budget", ["terminate", "truncate"])
def test_a_spent_budget_leaves_an_answer_unfinished(budget):
    envs = make(1, budget=budget, max_new_tokens=9)
    envs.reset(seed=0)
    _, rewards, over, cut, infos = type_out(envs, '{"n":1234')
    assert (over[0], cut[0]) == (budget == "terminate", budget == "truncate")
    assert infos["final_info"]["finish_reason"][0] == "grammar_unfinished" and rewards[0] == 0
    envs.reset(seed=0)
    infos = type_out(envs, '{"n":123}')[4]  # whole, though without its stop token
    assert infos["final_info"]["finish_reason"][0] == "length"


def test_where_nothing_fits_the_end_is_unfinished_and_never_a_stop():
    envs = make(1, max_new_tokens=12)
    start = {"tokens": [97, *b'{"n":123456'], "prompt_length": 1}
    envs.reset(options=start)  # one place for "}", none for the stop token
    infos = envs.step(np.array([ord("7")]))[4]
    assert infos["final_info"]["finish_reason"][0] == "grammar_unfinished"


def test_near_the_budget_only_what_can_be_finished_may_be_chosen():
    envs = make(1, max_new_tokens=9)
    envs.reset(seed=0)
    infos = type_out(envs, '{"n":12')[4]
    assert [*np.flatnonzero(infos["action_mask"][0])] == [ord("}")]
    infos = type_out(envs, "}")[4]
    assert [*np.flatnonzero(infos["action_mask"][0])] == [STOP]


# ---------------------------------------------------------------- starts, states, copies


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP"])
def test_a_restored_environment_goes_on_with_the_same_masks(mode):
    mode = gym.vector.AutoresetMode[mode]
    envs, other = (make(autoreset_mode=mode) for _ in range(2))
    _, infos = envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for step in range(30):
        if step % 7 == 3:
            other.load_state_dict(copy.deepcopy(envs.state_dict()))
            np.testing.assert_array_equal(other.action_masks(), envs.action_masks())
        actions = choices(infos, rng)
        observations, *_, infos = envs.step(actions)
        if step >= 3:
            theirs, *_, told = other.step(actions)
            np.testing.assert_array_equal(theirs, observations)
            np.testing.assert_array_equal(told["action_mask"], infos["action_mask"])


def test_a_start_in_the_middle_of_an_answer_has_the_masks_of_that_place():
    envs = make(2)
    envs.reset(seed=0)
    infos = type_out(envs, '{"n":4')[4]
    start = envs.start_of(0)
    again = make(1)
    mask = again.reset(options={"start": start})[1]["action_mask"][0]
    np.testing.assert_array_equal(mask, infos["action_mask"][0])
    given = {"tokens": [97, *b'{"n":4'], "prompt_length": 1}
    mask = again.reset(options=given)[1]["action_mask"][0]
    np.testing.assert_array_equal(mask, infos["action_mask"][0])
    played = envs.playing([replace(start, episode_seed=1)])
    mask = played.reset()[1]["action_mask"][0]
    np.testing.assert_array_equal(mask, infos["action_mask"][0])
    with pytest.raises(ResetOptionsError, match="cannot stand there"):
        again.reset(options={"tokens": [97, *b'{"m'], "prompt_length": 1})


def test_the_single_environment_has_the_same_masks():
    one, many = (
        TextEnv(grammar="regex:(a|bb)+", prompts=["x"], reward=whole, max_new_tokens=5),
        None,
    )
    many = make(1, grammar="regex:(a|bb)+", prompts=["x"], max_new_tokens=5)
    _, info = one.reset(seed=0)
    _, infos = many.reset(seed=0)
    for letter in "bba":
        np.testing.assert_array_equal(info["action_mask"], infos["action_mask"][0])
        np.testing.assert_array_equal(one.action_masks(), many.action_masks()[0])
        *_, info = one.step(ord(letter))
        *_, infos = many.step(np.array([ord(letter)]))


@pytest.mark.parametrize(
    "grammar", ["regex:[ab]+", JsonSchema(COUNT), Lark('start: "a" start | "b"')]
)
def test_specs_and_pickles_hold_the_grammar(grammar):
    arguments = {"prompts": ["x"], "reward": whole, "grammar": grammar, "max_new_tokens": 9}
    env = gym.make("textenv/Generate-v0", **arguments)
    again = gym.make(env.spec)
    for one in (env, again):
        assert one.reset(seed=0)[1]["action_mask"].sum() in (1, 2)
    assert pickle.loads(pickle.dumps(grammar)) == grammar == copy.deepcopy(grammar)
    assert load_grammar(grammar) == load_grammar(load_grammar(grammar))
    if isinstance(grammar, str):
        written = gym.make("textenv/Generate-v0", **{**arguments, "reward": "math:fsum"}).spec
        assert EnvSpec.from_json(written.to_json()).kwargs["grammar"] == grammar


def test_an_environment_is_sent_to_another_process_with_its_grammars():
    envs = make()
    envs.reset(seed=0)
    type_out(envs, '{"n')
    other = pickle.loads(pickle.dumps(envs._grammars))
    np.testing.assert_array_equal(other.masks(), envs.action_masks())


def test_rows_share_what_is_compiled():
    envs = make(4)
    assert len({id(text._grammar) for text in [envs._grammars.begun({}) for _ in range(3)]}) == 1
    assert make(2)._grammar.of({}) is envs._grammar.of({})


def test_each_prompt_may_have_a_grammar_of_its_own():
    prompts = [
        {"prompt": "x", "grammar": "regex:a+"},
        {"prompt": "y", "grammar": {"type": "boolean"}},
    ]
    envs = make(4, prompts=prompts, grammar=OfRecord())
    _, infos = envs.reset(seed=0)
    for record, mask in zip(infos["record"], infos["action_mask"], strict=True):
        begins = "a" if record["prompt"] == "x" else "tf"
        assert [*np.flatnonzero(mask)] == sorted(map(ord, begins))
    with pytest.raises(GrammarError, match="no column 'rules'"):
        make(prompts=prompts, grammar="record:rules").reset(seed=0)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grammar": "regex:a(b"}, r"(?s)does not compile.*at 1\(8\).*unclosed group"),
        ({"grammar": Lark('start: foo\nbar: "b"')}, r"unknown name: \"foo\""),
        ({"grammar": JsonSchema({"not": {}})}, "Unimplemented keys"),
        ({"grammar": "regex:a", "tokenizer": CharacterTokenizer("bc")}, "can begin a text"),
        ({"grammar": "regex:a", "forbidden_tokens": [97]}, "can begin a text"),
        ({"grammar": "regex:a", "stop_tokens": ()}, "stop token"),
        ({"grammar": "regex:a", "min_new_tokens": 2}, "min_new_tokens=2"),
        ({"grammar": "regex:a", "stop_strings": ["."]}, "stop_strings"),
        ({"grammar": "regex:a{12}"}, "13 with its stop token: raise max_new_tokens"),
        ({"grammar": "a+"}, "is no grammar: give regex:PATTERN"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(arguments, message):
    with pytest.raises(GrammarError, match=message):
        make(**{"prompts": ["b"], **arguments})


class Echo(textenv.World):
    def begin(self, record, rng):
        return "Say something."

    def reply(self, turn, rng):
        return textenv.Reply(terminated=True)


def test_conversations_are_refused_until_they_can_have_grammars():
    with pytest.raises(GrammarError, match="conversations"):
        TextVectorEnv(1, world=Echo, grammar="regex:a", max_prompt_tokens=20)


def test_grammars_are_read_from_files(tmp_path):
    schema, rules = tmp_path / "schema.json", tmp_path / "rules.lark"
    schema.write_text(json.dumps(COUNT))
    rules.write_text('start: "a"')
    assert load_grammar(f"json:{schema}") == JsonSchema(COUNT)
    assert load_grammar(f"lark:{rules}") == Lark('start: "a"')
    with pytest.raises(MissingFileError):
        load_grammar(f"json:{tmp_path}/none.json")
    for wrong in ("[1]", "{", {"a": {1, 2}}):
        with pytest.raises(GrammarError):
            JsonSchema(wrong)
