"""The whole recipe of the assistant at a size of seconds, in both languages."""

import json
from dataclasses import replace

import pytest
import torch
from command_line import run_command
from rich.console import Console

from agents.jobs.recipe import settings
from agents.jobs.recipe.assistant.examination import BASE, CUT, PPO, SFT, examination
from agents.jobs.recipe.assistant.pipeline import STAGES, AssistantRecipe
from agents.jobs.recipe.assistant.settings import AssistantSettings
from agents.jobs.recipe.settings import Size
from agents.runs.stages import Stages
from policies import load_policy
from textenv.frames import ChatTemplate
from textenv.tasks import assistant

SMALL = AssistantSettings(
    size="small",
    vocab_size=700,
    context=256,
    conversation_tokens=160,
    max_new_tokens=8,
    corpus_texts=150,
    held_out_texts=20,
    pretrain_tokens=8000,
    demonstrations=40,
    sft_documents=10,
    ranked_prompts=40,
    label_noise=0.3,
    dpo_rankings=30,
    played_dialogues=50,
    ppo_tokens=400,
    ppo_rows=16,
    ppo_episodes=16,
    online_rounds=2,
    online_prompts=8,
    best_of=2,
    eval_dialogues=18,
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setitem(settings.SIZES, "small", Size(1, 2, 16))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_all_stages_are_made_once_and_the_last_speaks_the_template(tmp_path, language):
    wanted = replace(SMALL, language=language)
    stages = Stages(Console(quiet=True))
    AssistantRecipe(wanted, tmp_path, stages).run()
    times = {name: (tmp_path / name / "made_from.json").stat().st_mtime_ns for name in STAGES}
    result = examination(AssistantRecipe(wanted, tmp_path, stages))
    assert list(result.conduct) == [
        *(BASE, CUT, SFT, PPO, "PPO-ptx", "DPO", "RLAIF", "online"),
        "best of 2",
    ]
    assert result.kl[SFT] == pytest.approx(0.0, abs=1e-5)
    assert result.curves["ppo"][-1][0] >= wanted.ppo_tokens
    questions = [talk[0][0] for talk in result.transcripts[PPO]]
    held_out = assistant.dialogues(language, "held_out", wanted.eval_dialogues, seed=0)
    assert questions == [talk.exchanges[0].question for talk in held_out[: len(questions)]]

    AssistantRecipe(replace(wanted, dpo_rankings=20), tmp_path, stages).run()
    again = {n for n in STAGES if (tmp_path / n / "made_from.json").stat().st_mtime_ns != times[n]}
    assert again == {"dpo", "ai_preferences", "rlaif"}

    policy = load_policy(tmp_path / "ppo")
    assert (
        ChatTemplate(**policy.chat_template) == AssistantRecipe(wanted, tmp_path, stages).template
    )
    told = run_command("chat", tmp_path / "ppo", "--seed", 0, typed=f"{questions[0]}\n/exit\n")
    assert told.exit_code == 0 and "no dialogue" not in told.output


def test_the_command_ends_with_tables_and_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(
        AssistantSettings, "scaled", lambda self, budget: replace(SMALL, seed=self.seed)
    )
    arguments = ["recipe", "--task", "assistant", "--size", "small", "--out", tmp_path]
    ran = run_command(*arguments)
    assert ran.exit_code == 0, ran.output
    assert "What each stage gains" in ran.output
    (numbers,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert set(numbers["gains"]) >= {f"{SFT} - {BASE}", f"{PPO} - {SFT}", f"RLAIF - {SFT}"}
    assert (tmp_path / "assistant-en-small-0" / "ppo").is_dir()
    assert "The first held-out dialogues" in (tmp_path / "report.html").read_text(encoding="utf-8")
