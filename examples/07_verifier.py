"""The same model and a verifier: it learns to say what a times b is, by GRPO instead of PPO.

SmolLM2 knows most products but talks around them ("To find 4 times 7, you can think of..."), and
an answer has 12 tokens. Eight answers to one question are compared with each other. The questions
go through the model's chat template. A quarter of the products is held out; if 4 * 7 is, so is
7 * 4.

Run: python examples/07_verifier.py [model] [total_tokens] [seed]
"""

import random
import sys
import time

from peft import LoraConfig
from rich import print

from agents import GRPO, Learner
from agents.evaluation import compare_answers, comparison_table, evaluate
from agents.runs.samples import comparison_table as samples_table
from policies import HuggingFacePolicy
from textenv import Prompt, TextVectorEnv
from textenv.tasks import numeric_answer

model, total_tokens, seed = [*sys.argv[1:], "", "", ""][:3]
policy = HuggingFacePolicy.from_pretrained(
    model or "HuggingFaceTB/SmolLM2-135M-Instruct", context=128
)


def ask(a, b):
    """A prompt with its answer, as ids: a special token that is spelt in text would stay text."""
    question = f"What is {a} times {b}?"
    messages = [{"role": "user", "content": question}]
    ids = policy.transformers_tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    return Prompt(question, {"answer": str(a * b)}, ids)


products = [(a, b) for a in range(2, 13) for b in range(2, 21)]
random.Random(0).shuffle(products)
kept = {frozenset(pair) for pair in products[:40]}
held_out = [ask(*pair) for pair in products if frozenset(pair) in kept]
training = [ask(*pair) for pair in products if frozenset(pair) not in kept]

layers = list(range(policy.model.config.num_hidden_layers))
projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
policy.add_adapter(
    LoraConfig(r=16, lora_alpha=32, target_modules=projections, layers_to_transform=layers[-8:])
)
reference = policy.reference()
envs = TextVectorEnv(
    64,
    prompts=training,
    reward=numeric_answer(),
    tokenizer=policy.tokenizer,
    max_new_tokens=12,
    group_size=8,
)
learner = Learner(
    policy,
    envs,
    GRPO(n_epochs=2, minibatch_tokens=256),
    reference=reference,
    kl_coef=0.02,
    learning_rate=lambda done: 1e-3 * (1 - done),
    n_episodes=64,
    temperature=0.7,
    seed=int(seed or 0),
)
begin = time.process_time()
for update in learner.updates(int(total_tokens or 6000)):
    print(
        f"{update.tokens:6d} tokens  right {update.score:4.0%}  "
        f"KL {update.kl:.3f} a token  {time.process_time() - begin:4.0f} s of processor"
    )

answers = {
    name: evaluate(who, envs, held_out, reference=reference, temperature=0.7)
    for name, who in {"before": reference, "after": policy}.items()
}
rows = compare_answers(answers)
print(comparison_table(rows, title="Held-out products; reward: share of right answers"))
print(samples_table(answers["before"].samples[:8], answers["after"].samples[:8]))
