"""Many epochs with a checkpoint each, and dropout in the steps of supervised training."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agents.feedback import Ranking, reward_model_steps
from agents.supervised import (
    Epoch,
    Example,
    Fitting,
    answer_loss,
    best_epoch,
    by_epoch,
    pretraining_steps,
    reward_model_score,
    sft_steps,
)
from agents.supervised.epochs import CURVE, write_curve
from agents.supervised.sft import held_out_answer_loss, steps_of
from policies import Dropout, RewardModel, TransformerConfig, TransformerPolicy, load_policy
from textenv.errors import PromptError
from textenv.frames import ChatTemplate, load_frame
from textenv.tokenizers import BytesTokenizer

torch.set_num_threads(1)
EXAMPLES = [Example((("ab", False), (letter, True))) for letter in "cdefgh"]
RATES = Dropout(residual=0.3, attention=0.1, embedding=0.1)


def small(seed=0):
    shape = TransformerConfig(257, 16, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(shape, tokenizer=BytesTokenizer(), seed=seed)


def epoch(number, **measured):
    return Epoch(number, 1.0, measured)


# --- which epoch ---------------------------------------------------------------------------------


def test_the_lowest_loss_or_the_highest_score_is_chosen():
    losses, scores = (9, 3.0, 2.0, 2.5, 2.0), (9, 0.1, 0.2, 0.7, 0.6)
    curve = [epoch(i, loss=a, score=b) for i, (a, b) in enumerate(zip(losses, scores, strict=True))]
    assert best_epoch(curve, "loss", largest=False).number == 2
    assert best_epoch(curve, "score", largest=True).number == 3  # the policy before is none of them
    with pytest.raises(PromptError, match="no epoch can be chosen"):
        best_epoch([epoch(1, loss=math.nan)], "loss", largest=False)


def test_every_epoch_is_measured_and_kept(tmp_path):
    policy, held_out = small(), EXAMPLES[4:]
    steps = sft_steps(policy, EXAMPLES[:4], epochs=3, batch_size=3, learning_rate=1e-2)
    measures = {"loss": lambda policy: held_out_answer_loss(policy, held_out)}
    curve = list(by_epoch(policy, steps, steps_of(4, 1, 3), measures, tmp_path))
    assert [e.number for e in curve] == [0, 1, 2, 3]
    assert math.isnan(curve[0].loss) and curve[3].loss < curve[1].loss
    for e in curve[1:]:
        kept = load_policy(tmp_path / e.folder)
        assert held_out_answer_loss(kept, held_out) == pytest.approx(e.measured["loss"], abs=1e-5)
    write_curve(tmp_path, curve, "loss", curve[2])
    known = json.loads((tmp_path / CURVE).read_text())
    assert known["chosen"] == 2 and known["by"] == "loss"
    assert [e["measured"]["loss"] for e in known["epochs"]] == [e.measured["loss"] for e in curve]
    assert known["epochs"][0]["loss"] is None


def test_a_reward_models_score_of_answers():
    policy, model = small(), RewardModel.from_policy(small(1), seed=2)
    measure = reward_model_score(model, EXAMPLES, 5, seed=3)
    score = measure(policy)
    prompts = [policy.tokenizer.encode("ab")] * 6
    answers = policy.generate(prompts, 5, generator=np.random.default_rng(3))
    assert score == pytest.approx(model.score_texts(["ab"] * 6, answers).mean())
    assert measure(policy) == score != measure(small(5))  # the same random numbers every time
    assert math.isnan(reward_model_score(model, EXAMPLES, 15)(policy))  # no room for an answer


def test_measured_answers_end_where_the_template_ends_turns(monkeypatch):
    policy, model = small(), RewardModel.from_policy(small(1), seed=2)
    frame = load_frame(ChatTemplate(user="{content}:"), policy.tokenizer)
    asked = Example.from_record({"prompt": "ab", "response": "c"}, frame, frame_texts=True)
    said = []
    scored = lambda asked, answers: said.extend(answers) or np.zeros(len(answers))  # noqa: E731
    monkeypatch.setattr(model, "score_texts", scored)
    measure = reward_model_score(model, [asked], 5, seed=3)
    measure(policy)
    first = policy.tokenizer.encode(said[0])[0]
    monkeypatch.setattr(frame, "end_of_turn", first)  # not what the tokenizer names
    measure(policy)
    monkeypatch.setattr(frame, "end_of_turn", None)
    monkeypatch.setattr(frame, "role_tokens", (first,))
    measure(policy)
    assert said[0] and not said[1]  # the same random numbers
    assert said[2] and said[2][0] != said[0][0]


# --- dropout -------------------------------------------------------------------------------------


def losses_of(dropout, seed=0, steps=3):
    policy = small()
    trained = sft_steps(
        policy, EXAMPLES, epochs=steps, batch_size=6, learning_rate=1e-2, dropout=dropout, seed=seed
    )
    return [step.loss for step in trained], policy


def test_dropout_changes_the_losses_of_fine_tuning_and_none_changes_no_bit():
    plain, policy = losses_of(None)
    zero, same = losses_of(Dropout())
    assert plain == zero
    for a, b in zip(policy.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    dropped, _ = losses_of(RATES)
    assert dropped != plain and losses_of(RATES)[0] == dropped
    assert losses_of(RATES, seed=1)[0][0] != dropped[0]


def test_scores_are_alike_before_and_after_a_step_with_dropout():
    policy = small()
    tokens = torch.tensor([[97, 98, 99, 256]])
    mask = torch.tensor([[False, True, True, True]])
    steps = sft_steps(policy, EXAMPLES, epochs=2, batch_size=6, learning_rate=0.0, dropout=RATES)
    before = policy.outputs(tokens, mask).logprobs
    losses = []
    for step in steps:  # the weights stay as they are
        losses.append(step.loss)
        assert torch.equal(policy.train().outputs(tokens, mask).logprobs, before)
    assert losses[0] != losses[1]  # each step drops others


def test_the_loss_with_dropout_is_that_of_the_context():
    """A step's loss is recomputed with torch's own dropout and random state."""
    policy = small()
    tokens, learned = torch.tensor([[97, 98, 99, 256]]), torch.tensor([[False, False, True, True]])
    fitting = Fitting(policy, steps=1, learning_rate=0.0, dropout=Dropout(embedding=0.5), seed=4)
    step = fitting.step(answer_loss(policy, tokens, learned, torch.tensor([4])) for _ in [0])
    (seed,) = np.random.SeedSequence([4, 0]).generate_state(1, np.uint64)
    network = policy.transformer
    with torch.random.fork_rng([]):
        torch.manual_seed(int(seed))
        # Three places are read: the last token is predicted only.
        summed = network.token_embedding(tokens[0, :3]) + network.position_embedding.weight[:3]
        dropped = F.dropout(summed, 0.5)
    x = dropped
    block = network.blocks[0]
    q, k, v = block.qkv(block.ln_1(x)).view(3, 3, 2, 8).permute(1, 2, 0, 3)
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + block.attn_out(attended.transpose(0, 1).flatten(1))
    x = x + block.mlp_out(F.gelu(block.mlp_in(block.ln_2(x))))
    logits = network.ln_f(x)[1:] @ network.token_embedding.weight.T
    assert step.loss == pytest.approx(F.cross_entropy(logits, tokens[0, 2:]).item(), abs=1e-5)


def test_pretraining_and_reward_models_drop_by_seed():
    def pretrained(dropout, seed=0):
        options = {"window": 8, "batch_size": 4, "total_tokens": 64, "seed": seed}
        steps = pretraining_steps(small(), np.arange(200) % 7, dropout=dropout, **options)
        return [step.loss for step in steps]

    rankings = [Ranking(f"q{i}", ("a", "bc"), (1, 2)) for i in range(4)]

    def ranked(dropout, seed=0):
        model = RewardModel.from_policy(small())
        steps = reward_model_steps(model, rankings, batch_size=2, dropout=dropout, seed=seed)
        return [step.loss for step in steps]

    for trained in (pretrained, ranked):
        assert trained(None) == trained(Dropout())
        assert trained(RATES) == trained(RATES) != trained(None)


def test_a_resumed_step_drops_what_it_would_have(tmp_path):
    def trained(cut):
        policy = small()
        options = {"window": 8, "batch_size": 4, "total_tokens": 32 * 6, "seed": 1}
        fitting = Fitting(policy, steps=6, learning_rate=1e-2, dropout=RATES, seed=1)
        losses = []
        for step in pretraining_steps(policy, np.arange(200) % 7, fitting=fitting, **options):
            losses.append(step.loss)
            if step.number == cut:
                break
        if cut:
            fitting.save(tmp_path)
            fitting = Fitting(policy, steps=6, learning_rate=1e-2, dropout=RATES, seed=1)
            fitting.load(tmp_path)
            rest = pretraining_steps(policy, np.arange(200) % 7, fitting=fitting, **options)
            losses += [step.loss for step in rest]
        return losses

    assert trained(2) == trained(None)
