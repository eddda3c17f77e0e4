"""Rewards by turn, labels and the judge of the assistant's recipe, each against what it must be."""

import numpy as np
import pytest
import torch

from agents.collector import Collector
from agents.feedback import Ranking, laid_flat, standardise
from agents.jobs.machine import faster_in_bfloat16
from agents.jobs.recipe.assistant.dialogues import Unpaid, prompts_of, score_turns
from agents.jobs.recipe.assistant.judging import agreement, ranked_by_likelihood
from agents.jobs.recipe.assistant.labelling import ranked_by_verdicts
from policies import RewardModel, TransformerConfig, TransformerPolicy
from textenv import TextVectorEnv
from textenv.frames import ChatTemplate
from textenv.tasks import assistant
from textenv.tokenizers import BytesTokenizer

TOKENIZER = BytesTokenizer()


def network(context: int = 512, seed: int = 0) -> TransformerPolicy:
    shape = TransformerConfig(TOKENIZER.vocab_size, context, n_layer=1, n_head=2, n_embd=16)
    return TransformerPolicy(shape, tokenizer=TOKENIZER, seed=seed)


def test_each_turn_is_paid_what_the_reward_model_says_of_the_conversation_up_to_there():
    model = RewardModel.from_policy(network(seed=1))
    talks = assistant.dialogues("en", "training", 6, 0, kinds=["follow_sum", "sort"])
    envs = TextVectorEnv(
        3,
        prompts=[assistant.world_record(talk) for talk in talks],
        world=Unpaid,
        reward=score_turns(model, 5),
        frame=ChatTemplate(),
        tokenizer=TOKENIZER,
        max_turns=4,
        max_turn_tokens=5,
        max_new_tokens=300,
        max_prompt_tokens=120,
    )
    rollout = Collector(network(), envs, seed=0).collect_episodes(6)
    assert int(rollout.turns.max()) > 1
    for row in range(len(rollout)):
        turns = rollout.turns[row]
        for number in range(1, int(turns.max()) + 1):
            last = int((turns == number).nonzero()[-1])
            ids = rollout.tokens[row, : last + 1].tolist()
            if ids[-1] != TOKENIZER.stop_token:
                ids.append(TOKENIZER.stop_token)  # a turn that was cut is read as an ended one
            tokens = model.pad([ids])
            paid = rollout.rewards[row][turns == number]
            assert paid[-1].item() == pytest.approx(model.score_tokens(tokens).item(), abs=1e-4)
            assert not paid[:-1].any()  # neither the world nor the model pays elsewhere


def test_labels_follow_the_verdicts_and_noise_turns_some_of_them():
    prompts = prompts_of(assistant.dialogues("en", "training", 200, 0), 1)
    references = [prompt.columns["reference"] for prompt in prompts]
    answers = [["Hm.", reference, "Hm."] for reference in references]
    exact = ranked_by_verdicts(prompts, answers, 0.0, seed=0)
    assert {ranking.ranks for ranking in exact} == {(2, 1, 2)}
    assert exact[0].messages == tuple(prompts[0].messages)
    noisy = ranked_by_verdicts(prompts, answers, 0.2, seed=0)
    kept = np.mean([ranking.ranks == (2, 1, 2) for ranking in noisy])
    # Three labels are kept or, all being wrong, turned round: 0.8^3.
    assert kept == pytest.approx(0.8**3, abs=0.08)


def test_the_policy_prefers_what_it_finds_likelier():
    policy, frame = network(), ChatTemplate().frame(TOKENIZER)
    messages = [{"role": "user", "content": "Add 1 and 2."}]
    answers = ("3.", "1 plus 2 is 3.", "3.", "No.")
    (ranked,) = ranked_by_likelihood(
        policy, [Ranking.from_scores(messages, answers, [0.0] * 4)], frame, "SFT"
    )
    means = []
    for answer in answers:  # by hand: the log-probability of each token from the logits before it
        prompt = frame.opening(messages)
        ids = [*prompt, *TOKENIZER.encode(" " + answer), TOKENIZER.stop_token]
        with torch.no_grad():
            hidden = policy.hidden_states(torch.tensor(ids), torch.tensor([len(ids)]))
            logprobs = policy.logits(hidden).log_softmax(-1)
        chosen = [logprobs[place - 1, ids[place]].item() for place in range(len(prompt), len(ids))]
        means.append(round(np.mean(chosen), 3))
    expected = [1 + sum(other > mean for other in means) for mean in means]
    assert list(ranked.ranks) == expected and ranked.ranks[0] == ranked.ranks[2]
    assert ranked.labeller == "SFT"


def test_standardised_scores_keep_their_order():
    model = RewardModel.from_policy(network(), 3, ChatTemplate())
    messages = [{"role": "user", "content": "Add 1 and 2."}]
    rankings = [Ranking.from_scores(messages, ("3.", "4.", "Hm."), [1.0, 0.0, 0.0])]
    before = model.score_texts(*laid_flat(rankings))
    standardise(model, *laid_flat(rankings))
    after = model.score_texts(*laid_flat(rankings))
    assert after == pytest.approx((before - before.mean()) / before.std(), abs=1e-4)


def test_agreement_counts_pairs_of_a_good_and_a_bad_answer():
    prompts = prompts_of(assistant.dialogues("en", "training", 2, 0), 1)
    good = [prompt.columns["reference"] for prompt in prompts]
    rankings = [
        Ranking("?", (good[0], "Hm.", "Oh."), (1, 2, 1)),  # one pair right, one tied
        Ranking("?", (good[1], "Hm."), (2, 1)),
    ]
    assert agreement(prompts, rankings).mean == pytest.approx((0.75 + 0.0) / 2)
    assert np.isnan(agreement(prompts, [Ranking("?", ("Hm.", "Oh."), (1, 2))] * 2).mean)


def test_which_number_format_is_faster_is_measured():
    assert faster_in_bfloat16(torch.device("cpu")) in (True, False)
