#!/usr/bin/env bash
# trl 1.16.0 (transformers 5.23.0, torch 2.13.0): results of tools are told in another order than
# they were called in, and some chat templates do not say which is whose.
#
# GRPOTrainer carries out the plain tools of a turn at once and its async tools afterwards, and
# appends the results in that order. Qwen3's template writes results without the tools' names. So a
# model that calls an async tool first, then a plain one, reads each result as the other's.
#
# Seen: "far" is called before "near", and the result of "near" stands first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 transformers==5.23.0 trl==1.16.0
cd "$folder"

cat > order.py <<'PYTHON'
import json
import pathlib

import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=made,
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
    additional_special_tokens=["<|im_start|>"],
)
templates = pathlib.Path(trl.__file__).parent / "chat_templates"
tokenizer.chat_template = (templates / "qwen3.jinja").read_text()
end = tokenizer.eos_token_id


async def far(place: str) -> str:
    """Look up a place far away.

    Args:
        place: The place.
    """
    return "snow"


def near(place: str) -> str:
    """Look up a place nearby.

    Args:
        place: The place.
    """
    return "rain"


def nothing(completions, **kwargs):
    return [0.0 for _ in completions]


config = Qwen3Config(
    vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8, bos_token_id=None,
    eos_token_id=end, pad_token_id=tokenizer.pad_token_id,
)
rows = [{"prompt": [{"role": "user", "content": "Weather?"}]}] * 2
trainer = trl.GRPOTrainer(
    model=Qwen3ForCausalLM(config),
    train_dataset=Dataset.from_list(rows),
    args=trl.GRPOConfig(
        output_dir="out", num_generations=2, per_device_train_batch_size=2,
        max_completion_length=600, report_to=[], use_cpu=True, bf16=False,
    ),
    processing_class=tokenizer,
    reward_funcs=nothing,
    tools=[far, near],
)
calls = [
    f"<tool_call>\n{json.dumps({'name': name, 'arguments': {'place': place}})}\n</tool_call>"
    for name, place in (("far", "Oslo"), ("near", "Paris"))
]
turns = iter(["\n".join(calls), "Done."])


def said(prompts, *args, **kwargs):  # in place of a model that has learned to call tools
    ids = [*tokenizer(next(turns))["input_ids"], end]
    return [list(ids) for _ in prompts], None


trainer._generate_single_turn = said
trainer.model.train()
batch = trainer._generate_and_score_completions(rows)
text = tokenizer.decode(batch["completion_ids"][0])
print(text.partition("<|im_start|>user\n")[2].partition("<|im_end|>")[0].replace("\n", " "))
PYTHON

got=$(TRL_EXPERIMENTAL_SILENCE=1 HF_HUB_OFFLINE=1 venv/bin/python -W ignore order.py 2> errors) ||
  { cat errors; exit 1; }
expected="<tool_response> rain </tool_response> <tool_response> snow </tool_response>"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
