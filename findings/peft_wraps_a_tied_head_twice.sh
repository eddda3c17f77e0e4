#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.23.0, torch 2.13.0): a second adapter of trained tokens breaks the
# first one where the head is tied to the embedding.
#
# TrainableTokensConfig on the embedding wraps the tied head too. When another adapter of the type
# is added, the layer inside that wrapper is wrapped once more. The outer wrapper then finds no
# linear layer in it, and the model raises a ValueError, whichever adapter is active.
#
# Seen: the first line works, the second raises.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 transformers==5.23.0 peft==0.21.2
cd "$folder"

cat > tokens.py <<'PYTHON'
import peft
import torch
from transformers import GPT2Config, GPT2LMHeadModel

config = GPT2Config(
    vocab_size=7, n_embd=16, n_layer=2, n_head=4, n_positions=24, bos_token_id=0, eos_token_id=1
)
tokens = peft.TrainableTokensConfig(token_indices=[1, 2], target_modules=["wte"])
model = peft.get_peft_model(GPT2LMHeadModel(config).eval(), tokens)
text = torch.tensor([[1, 2, 3, 4]])
print("one adapter:", tuple(model(text).logits.shape))
model.add_adapter("second", tokens)
try:
    print("two adapters:", tuple(model(text).logits.shape))
except ValueError as error:
    print("two adapters:", error)
PYTHON

got=$(venv/bin/python -W ignore tokens.py)
expected="one adapter: (1, 4, 7)
two adapters: TrainableTokensLayer wraps an unknown layer type, maybe you are targeting the wrong layer?"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
