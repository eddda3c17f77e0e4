"""Wherever prompts become ids and ids become text, they do so in the same way."""

import json

import numpy as np
import pytest
import torch
from hf_models import tiny
from tokenizer_kinds import BEGIN, END, byte_fallback, tokenizer_of_kind, with_beginning
from transformers import PreTrainedTokenizerFast

from agents.evaluation.answers import evaluate
from agents.feedback.preferences import Ranking, preference_rollout, sample_answers
from agents.jobs import evaluate as evaluate_job
from agents.jobs.begin import begin_with
from agents.jobs.conversation import Chat, Continuation, Sampling, Voice
from agents.runs.samples import rollout_samples
from agents.runs.streaming import token_texts
from agents.supervised.sft import Example
from agents.supervised.token_stream import open_stream, write_stream
from policies import (
    HuggingFacePolicy,
    RewardModel,
    TransformerConfig,
    TransformerPolicy,
    generate_tokens,
    load_policy,
)
from policies.huggingface import EncoderDecoderPolicy
from textenv import Prompt, TextVectorEnv, load_tokenizer
from textenv.errors import OptionError, TokenizerError
from textenv.tokenizers import HuggingFaceTokenizer, encode_prompt, prompt_frame

torch.set_num_threads(1)
KIND = "space marks, beginning"  # as Llama's: `<s>` before texts, a space before words
BOS, STOP = 1, 2


@pytest.fixture(scope="module")
def policy():
    tokenizer = tokenizer_of_kind(KIND)
    config = TransformerConfig(tokenizer.vocab_size, 40, n_layer=1, n_head=2, n_embd=16)
    policy = TransformerPolicy(config, tokenizer=tokenizer)
    generator = torch.Generator().manual_seed(22)  # its answers begin with words and are varied
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return policy


def read_by(policy, monkeypatch, what):
    """Ids of the first text that the policy reads while `what` runs."""
    seen = []
    inner = policy.last_hidden

    def last_hidden(observations, cache=None):
        seen.append(np.array(observations[0]))
        return inner(observations, cache)

    with monkeypatch.context() as patch:
        patch.setattr(policy, "last_hidden", last_hidden)
        what()
    return [token for token in seen[0].tolist() if token != policy.pad_token]


def test_every_reader_of_prompts_begins_them(policy, monkeypatch, tmp_path):
    tokenizer = policy.tokenizer
    ids = [BOS, *tokenizer.encode("the cat")]
    assert encode_prompt(tokenizer, "the cat") == ids
    voice = Voice(policy, Sampling(4))
    envs = TextVectorEnv(
        1,
        prompts=["the cat"],
        reward=lambda episodes: [0.0] * len(episodes),
        tokenizer=tokenizer,
        max_new_tokens=4,
    )
    ways = {
        "generate": lambda: policy.generate(["the cat"], 4),
        "answers": lambda: sample_answers(policy, ["the cat"], 1, max_new_tokens=4),
        "evaluation": lambda: evaluate(policy, envs, [Prompt("the cat")]),
        "continuation": lambda: Continuation(voice).answer("the cat", lambda piece: None),
    }
    for name, way in ways.items():
        assert read_by(policy, monkeypatch, way) == ids, name
    chat = read_by(policy, monkeypatch, lambda: Chat(voice).answer("the", lambda piece: None))
    assert chat.count(BOS) == 1 and chat[0] == BOS
    example = Example.from_record({"prompt": "the", "response": " cat"})
    assert example.encode(tokenizer, 40) == ([*ids, STOP], [False, False, True, True])
    rollout = preference_rollout([Ranking("the", (" cat", " a"), (1, 2))], tokenizer, 40)
    assert rollout.tokens[0].tolist() == [*ids, STOP]
    assert RewardModel.from_policy(policy).encode(["the"], [" cat"]) == [[*ids, STOP]]
    path = write_stream(tmp_path / "text.tokens", ["the cat", "a"], tokenizer)
    stream = open_stream(path, tokenizer).tolist()
    assert stream == [*ids, STOP, BOS, *tokenizer.encode("a"), STOP]
    (tmp_path / "held_out.txt").write_text("the cat")
    assert evaluate_job._stream(tmp_path / "held_out.txt", policy).tolist() == ids


def test_every_reader_of_answers_reads_the_same(policy):
    """The text that the answer's ids add to the prompt, with the space before its first word."""
    tokenizer, prompts = policy.tokenizer, ["the cat", "a", "b the"]
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    answers = generate_tokens(policy, encoded, 6, temperature=0)
    due = []
    for ids, answer in zip(encoded, answers, strict=True):
        ended = answer[:-1] if answer[-1] == STOP else answer
        whole, before = tokenizer.decode([*ids[1:], *ended]), tokenizer.decode(ids[1:])
        due.append(whole.removeprefix(before))
    assert any(text.startswith(" ") for text in due)
    assert policy.generate(prompts, 6, temperature=0) == due
    cold = {"max_new_tokens": 6, "temperature": 1e-4}
    assert sample_answers(policy, prompts, 1, **cold) == [[text] for text in due]
    talker = Continuation(Voice(policy, Sampling(6, temperature=0)))
    assert [talker.answer(prompt, lambda piece: None) for prompt in prompts] == due
    envs = TextVectorEnv(
        3,
        prompts=prompts,
        reward=lambda episodes: [0.0] * len(episodes),
        tokenizer=tokenizer,
        max_new_tokens=6,
    )
    done = evaluate(policy, envs, [Prompt(prompt) for prompt in prompts], temperature=1e-4)
    assert [sample.text for sample in done.samples] == due
    assert [sample.prompt for sample in done.samples] == prompts
    for ids, answer, text in zip(encoded, answers, due, strict=True):
        ended = answer[:-1] if answer[-1] == STOP else answer
        assert "".join(token_texts(tokenizer, ended, ids)) == text
    rollout = preference_rollout([Ranking("the", (" cat", " a"), (1, 2))], tokenizer, 40)
    samples = rollout_samples(rollout, tokenizer)
    assert [(sample.prompt, sample.text) for sample in samples] == [("the", " cat"), ("the", " a")]


def test_chat_goes_on_behind_its_own_answer_without_marks_of_a_beginning(policy):
    """In training and in chat each piece is encoded as what goes on from those before it."""
    pieces = (("the", False), (" cat", True), ("\n", False))
    ids, _ = Example(pieces).encode(policy.tokenizer, 40)
    said = [token for token in ids[1:] if token != STOP]
    assert policy.tokenizer.decode(said) == "the cat\n"


# --- the switch, and what is saved


def llama_like(**settings):
    """A tiny Llama with a tokenizer that begins texts."""
    raw = with_beginning(byte_fallback())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=BEGIN, eos_token=END)
    model = tiny("llama", vocab_size=raw.get_vocab_size())
    return HuggingFacePolicy(model, tokenizer, **settings)


def test_the_beginning_and_its_switch_come_back_from_a_folder(tmp_path):
    for bos, frame in ((True, ((BOS,), ())), (False, ((), ()))):
        made = llama_like(bos=bos)
        assert prompt_frame(made.tokenizer) == frame
        made.save(tmp_path / str(bos))
        loaded = load_policy(tmp_path / str(bos))
        assert prompt_frame(loaded.tokenizer) == frame
        assert loaded.generate(["the cat"], 4, temperature=0) == made.generate(
            ["the cat"], 4, temperature=0
        )
    folder = str(tmp_path / "False")
    assert prompt_frame(load_tokenizer(f"hf:{folder}"))[0] == (BOS,)  # the tokenizer's files alone
    assert prompt_frame(HuggingFaceTokenizer.from_pretrained(folder, bos=False))[0] == ()
    assert prompt_frame(HuggingFacePolicy.from_pretrained(folder, bos=False).tokenizer)[0] == ()
    # A policy of version 0.1 was trained without.
    description = json.loads((tmp_path / "True" / "policy.json").read_text())
    del description["tokenizer"]["bos"]
    (tmp_path / "True" / "policy.json").write_text(json.dumps(description))
    assert prompt_frame(load_policy(tmp_path / "True").tokenizer)[0] == ()


def test_a_policy_of_ours_keeps_how_its_texts_begin(tmp_path):
    llama_like().save(tmp_path / "llama")
    for bos in (True, False):
        tokenizer = HuggingFaceTokenizer.from_pretrained(str(tmp_path / "llama"), bos=bos)
        config = TransformerConfig(tokenizer.vocab_size, 9, n_layer=1, n_head=1, n_embd=8)
        TransformerPolicy(config, tokenizer=tokenizer).save(tmp_path / str(bos))
        loaded = load_policy(tmp_path / str(bos)).tokenizer
        assert bool(prompt_frame(loaded)[0]) == bos
        assert loaded.stop_tokens == tokenizer.stop_tokens


def test_the_switch_of_the_command_line(tmp_path):
    made = llama_like()
    made.model.save_pretrained(tmp_path)
    made.transformers_tokenizer.save_pretrained(tmp_path)
    for no_bos, before in ((False, (BOS,)), (True, ())):
        begun = begin_with(str(tmp_path), None, no_bos)
        assert prompt_frame(begun.tokenizer)[0] == before
    made.save(tmp_path)
    with pytest.raises(OptionError, match=r"--no-bos: the policy .* leave --no-bos out"):
        begin_with(str(tmp_path), None, True)


def test_chat_templates_of_the_library_do_not_begin_twice():
    made = llama_like()
    made.transformers_tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    )
    messages = [{"role": "user", "content": "the cat"}]
    ids = made.transformers_tokenizer.apply_chat_template(messages, return_dict=False)
    text = made.transformers_tokenizer.apply_chat_template(messages, tokenize=False)
    for prompt in ({"tokens": ids}, text):
        envs = TextVectorEnv(
            1,
            prompts=[prompt],
            reward=lambda episodes: [0.0] * len(episodes),
            tokenizer=made.tokenizer,
            max_new_tokens=4,
        )
        observation = envs.reset(seed=0)[0][0].tolist()
        assert observation[0] == BOS and observation.count(BOS) == 1


def test_the_switch_of_a_tokenizer_that_is_made_already():
    tokenizer = tokenizer_of_kind("byte fallback, beginning")
    model = tiny("llama", vocab_size=tokenizer.vocab_size)
    with pytest.raises(TokenizerError, match=r"HuggingFaceTokenizer\(\.\.\., bos=False\)"):
        HuggingFacePolicy(model, tokenizer, bos=False)


def test_sources_begin_too_and_the_switch_leaves_their_end(tmp_path):
    raw = with_beginning(byte_fallback())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=BEGIN, eos_token=END)
    for bos, before in ((True, (BOS,)), (False, ())):
        model = tiny("bart", vocab_size=raw.get_vocab_size())
        made = EncoderDecoderPolicy(model, tokenizer, bos=bos)
        assert prompt_frame(made.tokenizer) == (before, (STOP,))
        made.save(tmp_path / str(bos))
        assert prompt_frame(load_policy(tmp_path / str(bos)).tokenizer) == (before, (STOP,))
