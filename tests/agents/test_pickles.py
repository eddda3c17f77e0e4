"""What can be copied and pickled: a copy goes on as the original does, in another process too."""

import copy
import json
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from letters import Letters
from toys import letters_env

from agents import PPO, AdaptiveKL, Learner, OffPolicyGradient, Trainer
from agents.evaluation.judges import afinn_judge, judge_reward, textblob_judge
from agents.evaluation.safety import profanity_words, toxicity_penalty
from agents.feedback.labellers import vader_labeller
from agents.jobs.speeches import sentiment_reward
from agents.optimisation.settings import falling
from agents.supervised.sft import with_language_modelling
from policies import RewardModel, SeparateValue, TransformerConfig, TransformerPolicy
from textenv.errors import PromptTooLongError, UnframedError
from textenv.rewards import dense, from_trl, per_text, weighted
from textenv.tasks import first_found, last_number, numeric_answer, whole_text
from textenv.tokenizers import BytesTokenizer, CharacterTokenizer, SourceTokenizer, train_bpe
from textenv.vector import TextVectorEnv

torch.set_num_threads(1)


def by_pickle(thing):
    return pickle.loads(pickle.dumps(thing))


COPIES = pytest.mark.parametrize("copied", [by_pickle, copy.deepcopy])


def share_of_b(episodes):
    return [float((e.tokens == 1).mean()) for e in episodes]


def shorter(text):
    return -float(len(text))


def at_the_end(batch):
    return 1.0 * batch.ended


def equal(completions, **columns):
    return [1.0 for _ in completions]


def ours(seed=0):
    config = TransformerConfig(7, 12, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(config, tokenizer=Letters(6, stop=True), seed=seed)


def learner_of(policy, algorithm=None, **options):
    reward = options.pop("reward", share_of_b)
    # Some algorithms compare answers.
    envs = letters_env(4, 6, reward=reward, tokenizer=policy.tokenizer, group_size=2)
    defaults = {"reference": policy.frozen_copy(), "kl_coef": 0.1, "learning_rate": 1e-2}
    if not options.get("n_episodes"):
        defaults["n_steps"] = 4
    return Learner(policy, envs, algorithm or PPO(n_epochs=2), **(defaults | options))


def with_lora():
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    from policies.huggingface import HuggingFacePolicy

    shape = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "vocab_size": 7}
    config = transformers.LlamaConfig(**shape, num_hidden_layers=1, max_position_embeddings=12)
    policy = HuggingFacePolicy(transformers.LlamaForCausalLM(config), Letters(6, stop=True))
    policy.add_adapter(peft.LoraConfig(r=2, target_modules="all-linear"))
    return learner_of(policy, reference=policy.reference())


def with_sources():
    transformers = pytest.importorskip("transformers")
    from policies.huggingface import EncoderDecoderPolicy

    shape = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 4, "num_layers": 1, "vocab_size": 7}
    config = transformers.T5Config(**shape, decoder_start_token_id=0, n_positions=12)
    model = transformers.T5ForConditionalGeneration(config)
    return learner_of(EncoderDecoderPolicy(model, SourceTokenizer(Letters(6, stop=True))))


LEARNERS = {
    "a constant rate": lambda: learner_of(ours()),
    "a rate that falls": lambda: learner_of(ours(), learning_rate=partial(falling, 1e-2)),
    "float16": lambda: learner_of(ours(), precision="float16", kl_coef=AdaptiveKL(0.1, 0.1, 50)),
    "replay": lambda: learner_of(ours(), OffPolicyGradient(replay=3), n_episodes=4),
    "a critic of its own": lambda: learner_of(SeparateValue(ours(), ours(1))),
    "a reward model": lambda: learner_of(ours(), reward=RewardModel.from_policy(ours())),
    "lora": with_lora,
    "encoder-decoder": with_sources,
}


def two_updates(learner):
    """What the next updates did, and the weights after them."""
    seen = []
    for _ in range(2):
        update = learner.update(fraction_done=0.5)
        seen += [update.score, update.entropy, update.tokens, update.rollout.tokens.tolist()]
    return seen + [p.detach().double().sum().item() for p in learner.policy.parameters()]


@COPIES
@pytest.mark.parametrize("made", LEARNERS)
def test_a_learner(made, copied):
    learner = LEARNERS[made]()
    learner.update()
    again = copied(learner)
    assert again.policy is not learner.policy and again.collector.policy is again.policy
    assert two_updates(again) == two_updates(learner)


def test_in_another_process(tmp_path):
    """Which has made no such policy, and has not read the reward's file."""
    reward = "def paid(episodes):\n    return [float(len(e.tokens)) for e in episodes]\n"
    (tmp_path / "paid.py").write_text(reward)
    learners = [learner_of(ours(), reward=str(tmp_path / "paid.py:paid")), with_lora()]
    learners.append(with_sources())
    for learner in learners:
        learner.update()
    (tmp_path / "learners").write_bytes(pickle.dumps(learners))
    program = f"""
import json, pickle, sys
sys.path[:0] = {sys.path!r}
learners = pickle.load(open({str(tmp_path / "learners")!r}, "rb"))
from {__name__} import two_updates
print(json.dumps([two_updates(learner) for learner in learners]))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [two_updates(learner) for learner in learners]


@COPIES
def test_a_trainer(copied):
    rollout = learner_of(ours()).collect()
    trainer = Trainer(ours(), PPO(n_epochs=2))
    again = copied(trainer)
    _, expected = trainer.learn_from(rollout)
    assert again.learn_from(rollout)[1] == expected


@COPIES
@pytest.mark.parametrize(
    "reward",
    [
        share_of_b,
        per_text(shorter),
        dense(at_the_end),
        from_trl(equal),
        weighted(short=(0.5, per_text(shorter)), end=(2, dense(at_the_end))),
        numeric_answer(first_found(last_number, whole_text)),
        pytest.param(lambda: judge_reward(afinn_judge()), id="afinn"),
        pytest.param(lambda: judge_reward(textblob_judge()), id="textblob"),
        pytest.param(sentiment_reward, id="sentiment"),
        pytest.param(lambda: toxicity_penalty(profanity_words()), id="profanity"),
    ],
)
def test_an_environment_in_the_middle_of_episodes(reward, copied):
    if getattr(reward, "__name__", "") in ("<lambda>", "sentiment_reward"):
        reward = reward()
    prompts = [{"prompt": "a", "answer": "3"}, {"prompt": "bc", "answer": "4"}]
    envs = TextVectorEnv(
        4, prompts=prompts, reward=reward, max_new_tokens=5, min_new_tokens=2, group_size=2
    )
    envs.reset(seed=3)
    actions = np.random.default_rng(0).integers(97, 123, size=(20, 4))
    for chosen in actions[:7]:
        envs.step(chosen)
    again = copied(envs)
    for chosen in actions[7:]:
        (*arrays, infos), (*same, told) = envs.step(chosen), again.step(chosen)
        for a, b in zip(arrays, same, strict=True):
            assert np.array_equal(a, b)
        assert repr(infos) == repr(told)


@COPIES
def test_functions_that_functions_made(copied):
    vader, swearing = copied(vader_labeller()), copied(profanity_words(["heck"]))
    good, bad = vader("", ["good", "bad"])
    assert good > bad and swearing(["heck", "sky"]) == [1.0, 0.0]
    copied(with_language_modelling(0.5))


@COPIES
def test_tokenizers(copied):
    made = [
        BytesTokenizer(),
        CharacterTokenizer("abc "),
        SourceTokenizer(BytesTokenizer()),
        train_bpe(["a cab, a cab"] * 3, 258),
    ]
    for tokenizer in made:
        again = copied(tokenizer)
        for name in ("name", "vocab_size", "stop_token", "fingerprint"):
            assert getattr(again, name) == getattr(tokenizer, name)
        assert again.encode("a cab") == tokenizer.encode("a cab")


def test_a_lambda_is_copied_and_not_pickled():
    learner = learner_of(ours(), learning_rate=lambda done: 1e-3)
    copy.deepcopy(learner).update()
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(learner)


@pytest.mark.parametrize(
    "error", [PromptTooLongError("which", "way out"), UnframedError("which", "way out")]
)
def test_an_error_comes_from_another_process_as_it_was(error):
    other = by_pickle(error)
    assert type(other) is type(error) and str(other) == str(error) and other.which == "which"


def test_the_state_of_a_trainer_is_all_but_the_weights():
    """Checkpoints take it without the optimiser, which they write by itself."""
    rollout = learner_of(ours()).collect()
    trainer = Trainer(ours(), PPO(n_epochs=2, minibatch_tokens=4))
    trainer.learn_from(rollout)
    again = Trainer(trainer.policy.frozen_copy().requires_grad_(), trainer.algorithm)
    again.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert "optimizer" not in trainer.runtime_state()
    expected = trainer.learn_from(rollout)[1]
    assert again.learn_from(rollout)[1] == expected
