"""Several tokens that end an answer: environments, generation, training texts, saved folders."""

import json

import numpy as np
import pytest
import torch
from hf_models import VOCAB, tiny
from test_huggingface_loading import word_tokenizer

from agents.evaluation.answers import evaluate
from agents.feedback.preferences import Ranking, preference_rollout, sample_answers
from agents.jobs.conversation import Continuation, Sampling, Voice
from agents.report.traces import STOP, token_traces
from agents.runs.samples import rollout_samples
from policies import TransformerConfig, TransformerPolicy, generate_tokens, load_policy
from policies.huggingface import EncoderDecoderPolicy, HuggingFacePolicy
from textenv import Prompt, TextVectorEnv, load_tokenizer
from textenv.errors import TokenizerError
from textenv.frames.chat_template import encode_pieces
from textenv.tokenizers import HuggingFaceTokenizer, SourceTokenizer, stop_tokens_of

torch.set_num_threads(1)
ENDS = (6, 3, 5)
"""The tokenizer's end of sequence, then those of the model's settings."""


def with_ends(ends, **config):
    """A model whose settings name `ends`, and a tokenizer whose end of sequence is 6."""
    model = tiny("llama", **config)
    model.generation_config.eos_token_id = ends
    return HuggingFacePolicy(model, word_tokenizer(eos_token="6"))


@pytest.fixture(scope="module")
def policy():
    return with_ends([3, 6, 5])


def all_end_once(answers, budget):
    """Each answer ends at its first stop token; each stop token ends some."""
    last = set()
    for answer in answers:
        assert not set(answer[:-1]) & set(ENDS)
        assert answer[-1] in ENDS or len(answer) == budget
        last.add(answer[-1])
    return last >= set(ENDS)


def test_all_ends_of_the_settings_are_known_and_the_tokenizers_own_comes_first(policy):
    assert policy.tokenizer.stop_tokens == ENDS and policy.tokenizer.stop_token == 6


def test_generation_ends_at_each(policy):
    answers = generate_tokens(policy, [[1]] * 60, 12, temperature=2.0)
    assert all_end_once(answers, 12)
    assert all(not set(text.split()) & {"3", "5", "6"} for text in policy.generate(["1"] * 20, 12))


def test_environments_end_at_each(policy):
    seen = []

    def reward(episodes):
        seen.extend(episodes)
        return [0.0] * len(episodes)

    envs = TextVectorEnv(
        4, prompts=["1", "2 4"], reward=reward, tokenizer=policy.tokenizer, max_new_tokens=8
    )
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(80):
        envs.step(envs.action_space.sample())
    assert all_end_once([e.tokens.tolist() for e in seen], 8)
    for e in seen:
        assert (e.finish_reason == "stop") == (e.tokens[-1] in ENDS)
        assert not set(e.text.split()) & {"3", "5", "6"}
    # What people read of answers knows the same ends.
    done = evaluate(policy, envs, [Prompt("1")] * 20, temperature=2.0)
    assert {int(answer[-1]) for answer in done.answers} >= set(ENDS)
    assert all(not set(sample.text.split()) & {"3", "5", "6"} for sample in done.samples)
    traces = token_traces(policy, envs, [Prompt("1")] * 20, temperature=2.0)
    assert sum(trace.tokens[-1] == STOP for trace in traces) > 10
    assert not {"3", "5", "6"} & {token.strip() for t in traces for token in t.tokens}


def test_chat_and_sampled_answers_end_at_each(policy):
    voice = Voice(policy, Sampling(8, temperature=2.0), np.random.default_rng(0))
    said = [Continuation(voice).answer("1", lambda piece: None) for _ in range(20)]
    done = []
    sampled = sample_answers(
        policy, ["1"], 20, max_new_tokens=8, temperature=2.0, on_answers=done.append
    )
    assert done == list(range(1, 21))
    assert all(not set(text.split()) & {"3", "5", "6"} for text in said + sampled[0])


def test_training_texts_end_with_the_first(policy):
    ids, learned = encode_pieces([("1", False), ("2", True)], policy.tokenizer)
    assert ids == [1, 2, 6] and learned == [False, True, True]
    rollout = preference_rollout([Ranking("1", ("2", "4"), (1, 2))], policy.tokenizer, 9)
    assert rollout.tokens.tolist() == [[1, 2, 6], [1, 4, 6]]
    rollout.tokens[:, 2] = torch.tensor([5, 3])  # as a policy may have ended them
    assert [s.text for s in rollout_samples(rollout, policy.tokenizer)] == [" 2", " 4"]


def test_all_ends_come_back_from_a_folder(policy, tmp_path):
    policy.save(tmp_path)
    assert load_policy(tmp_path).tokenizer.stop_tokens == ENDS
    assert load_tokenizer(f"hf:{tmp_path}").stop_tokens == ENDS  # from generation_config.json
    chosen = HuggingFacePolicy(tiny("llama"), word_tokenizer(eos_token="6"), stop=["4", 2])
    chosen.save(tmp_path / "chosen")
    assert load_policy(tmp_path / "chosen").tokenizer.stop_tokens == (4, 2)
    # A folder of version 0.1 names one, by its text.
    description = json.loads((tmp_path / "policy.json").read_text())
    del description["tokenizer"]["stop_tokens"], description["tokenizer"]["bos"]
    description["tokenizer"]["stop"] = "5"
    (tmp_path / "policy.json").write_text(json.dumps(description))
    assert load_policy(tmp_path).tokenizer.stop_tokens == (5,)


def test_a_policy_of_ours_keeps_the_ends_of_its_tokenizer(policy, tmp_path):
    policy.save(tmp_path / "model")
    tokenizer = HuggingFaceTokenizer.from_pretrained(str(tmp_path / "model"), stop=[4, 2])
    ours = TransformerPolicy(
        TransformerConfig(VOCAB, 9, n_layer=1, n_head=1, n_embd=8), tokenizer=tokenizer
    )
    ours.save(tmp_path / "ours")
    assert load_policy(tmp_path / "ours").tokenizer.stop_tokens == (4, 2)


def test_an_end_that_nobody_chose_is_none():
    """Its configuration says 1, as that of every model has some default."""
    policy = HuggingFacePolicy(tiny("llama"), word_tokenizer(eos_token="6"))
    assert policy.tokenizer.stop_tokens == (6,)
    special = word_tokenizer(eos_token="6", additional_special_tokens=["1"])
    assert HuggingFacePolicy(tiny("llama"), special).tokenizer.stop_tokens == (6, 1)


def test_one_end_in_a_file_of_settings_is_chosen(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    word_tokenizer(eos_token="6").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert HuggingFacePolicy.from_pretrained(tmp_path).tokenizer.stop_tokens == (6, 2)
    assert load_tokenizer(f"hf:{tmp_path}").stop_tokens == (6, 2)
    (tmp_path / "generation_config.json").unlink()
    assert load_tokenizer(f"hf:{tmp_path}").stop_tokens == (6,)


def test_ends_beyond_the_vocabulary_are_left_out():
    assert with_ends([3, 900]).tokenizer.stop_tokens == (6, 3)


def test_encoder_decoders_have_several_ends_too(tmp_path):
    model = tiny("t5")
    model.generation_config.eos_token_id = [3, 1]
    policy = EncoderDecoderPolicy(model, word_tokenizer(eos_token="6"))
    assert stop_tokens_of(policy.tokenizer) == (6, 3, 1)
    answers = generate_tokens(policy, [[2, 6]] * 40, 8, temperature=2.0)
    assert {answer[-1] for answer in answers} >= {6, 3, 1}
    policy.save(tmp_path)
    assert stop_tokens_of(load_policy(tmp_path).tokenizer) == (6, 3, 1)


@pytest.mark.parametrize("stop", ["9", 7, -1, ["1", "9"]])
def test_ends_that_are_no_tokens(stop):
    with pytest.raises(TokenizerError, match="is not a token of"):
        HuggingFaceTokenizer(word_tokenizer(), stop=stop)


def test_an_ordinary_token_that_ends_answers_stays_in_prompts():
    tokenizer = HuggingFaceTokenizer(word_tokenizer(), stop=["4", "2"])
    assert tokenizer.encode("1 4 2 3") == [1, 4, 2, 3]
    special = HuggingFaceTokenizer(word_tokenizer(eos_token="6"), stop=["6", "2"])
    assert special.encode("1 6 2 3") == [1, 2, 3]  # no text makes a special token
    assert SourceTokenizer(special).stop_tokens == (6, 2)
