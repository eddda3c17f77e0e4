"""Rewards by turn, labels and the judge of the assistant's recipe, each against what it must be."""

import re

import numpy as np
import pytest
import torch

from agents.collector import Collector
from agents.feedback import Ranking
from agents.jobs.machine import faster_in_bfloat16
from agents.jobs.recipe.assistant.dialogues import TEMPLATES, Unpaid, prompts_of, score_turns
from agents.jobs.recipe.assistant.judging import (
    agreement,
    demonstrations_of_judging,
    fits_a_judge,
    judged,
)
from agents.jobs.recipe.assistant.labelling import ranked_by_verdicts
from agents.jobs.recipe.assistant.pipeline import one_of_each
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


@pytest.mark.parametrize("language", ["en", "zh"])
def test_demonstrations_of_judging_name_the_answer_that_is_correct(language):
    prompts = one_of_each(assistant.dialogues(language, "training", 300, 1), seed=0)
    template = TEMPLATES[language]
    shown = demonstrations_of_judging(prompts, language, template, seed=0)
    assert len(shown) > 200  # the others were spoiled to something that is correct, too
    letters = [example.pieces[-1][0].strip() for example in shown]
    assert 0.4 < np.mean([letter == "A" for letter in letters]) < 0.6
    by_text = {prompt.text: prompt for prompt in prompts}
    for example, letter in zip(shown, letters, strict=True):
        asked = example.pieces[0][0]
        compared = re.search(r"\nA\W ?(.*)\nB\W ?(.*)\n(Which|哪)", asked)
        assert compared
        right, wrong = compared.groups()[:2] if letter == "A" else compared.groups()[1::-1]
        prompt = by_text[max((text for text in by_text if f"{text}\nA" in asked), key=len)]
        assert right == prompt.columns["reference"]
        assert not assistant.correct(prompt.columns["check"], wrong)


def test_the_judge_prefers_what_its_likelihoods_say_in_both_orders():
    prompts = prompts_of(assistant.dialogues("en", "training", 3, 0), 1)
    answers = [["Yes.", "No.", "Yes."]] * 3
    scores = judged(network(), prompts, answers, "en", ChatTemplate())
    for some in scores:
        assert some[0] == some[2] and sum(some) == 3.0  # equal texts tie; three pairs in all
        assert some[1] in (0.0, 1.0, 2.0)
    assert fits_a_judge(prompts[0], answers[0], "en", ChatTemplate(), network())
    assert not fits_a_judge(prompts[0], answers[0], "en", ChatTemplate(), network(context=64))


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
