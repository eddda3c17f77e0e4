"""A real language model and a verifier: SmolLM2-135M learns to add, by GRPO and LoRA.

A group of eight answers to one sum is compared with itself; right is right, so nothing can be
exploited. 300 of the 8,100 sums of two-digit numbers are held out.

Run: python examples/07_verifier.py [model] [total_tokens] [seed]
"""

import random
import sys
import time

from peft import LoraConfig
from rich import print

from agents import GRPO, Learner
from agents.evaluation import compare_answers, comparison_table, evaluate
from agents.samples import comparison_table as samples_table
from policies import HuggingFacePolicy
from textenv import Prompt, TextVectorEnv
from textenv.tasks import numeric_answer

SUMS = [(a, b) for a in range(10, 100) for b in range(10, 100)]
random.Random(0).shuffle(SUMS)
SHOWN, HELD_OUT, TRAINING = SUMS[:4], SUMS[4:304], SUMS[304:]


def ask(sums):
    """Prompts that show four sums and ask for another one."""
    shown = "".join(f"{a} + {b} = {a + b}\n" for a, b in SHOWN)
    return [Prompt(f"{shown}{a} + {b} = ", {"answer": str(a + b)}) for a, b in sums]


model, total_tokens, seed = [*sys.argv[1:], "", "", ""][:3]
model = model or "HuggingFaceTB/SmolLM2-135M-Instruct"

policy = HuggingFacePolicy.from_pretrained(model, context=128)
layers = list(range(policy.model.config.num_hidden_layers))
projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
policy.add_adapter(
    LoraConfig(r=16, lora_alpha=32, target_modules=projections, layers_to_transform=layers[-8:])
)
reference = policy.reference()
envs = TextVectorEnv(
    128,
    prompts=ask(TRAINING),
    reward=numeric_answer(),
    tokenizer=policy.tokenizer,
    max_new_tokens=4,
    stop_tokens=policy.tokenizer.encode("\n"),
    group_size=8,
)
learner = Learner(
    policy,
    envs,
    GRPO(n_epochs=2, minibatch_tokens=128),
    reference=reference,
    kl_coef=0.02,
    learning_rate=lambda done: 1e-3 * (1 - done),
    n_episodes=128,
    seed=int(seed or 0),
)
begin = time.process_time()
for update in learner.updates(int(total_tokens or 8000)):
    print(
        f"{update.tokens:6d} tokens  right {update.episode_return:5.1%}  "
        f"KL {update.kl:.3f} a token  {time.process_time() - begin:4.0f} s of processor"
    )

answers = {
    name: evaluate(who, envs, ask(HELD_OUT), reference=reference)
    for name, who in {"before": reference, "after": policy}.items()
}
print(
    comparison_table(compare_answers(answers), title="Held-out sums; reward: share of right ones")
)
shown = [answers[name].samples[:8] for name in ("before", "after")]
print(samples_table(*shown))
