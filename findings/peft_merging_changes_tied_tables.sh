#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.23.0, torch 2.13.0): merge_and_unload() of an adapter on a head that
# is tied to the embedding changes what the model says.
#
# The adapter changes the head alone. Merging adds it to the head's weights in place, and these are
# the embedding's too: the merged model reads with an embedding that nobody trained. The same
# happens from the other side, with an adapter on the embedding. Nothing is raised; a warning says
# that merging "can lead to complications" and that the weights can be cloned before.
#
# Seen: logits move by more than 0.1 in both cases, and by less than 1e-4 where the tables are two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 transformers==5.23.0 peft==0.21.2
cd "$folder"

cat > merging.py <<'PYTHON'
import peft
import torch
from transformers import GPT2Config, GPT2LMHeadModel


def moved(table, tied):
    """How far merging moves the logits of a small random GPT-2 with LoRA on `table`."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=7, n_embd=16, n_layer=2, n_head=4, n_positions=24, tie_word_embeddings=tied,
        bos_token_id=0, eos_token_id=1,
    )
    model = peft.get_peft_model(
        GPT2LMHeadModel(config).eval(), peft.LoraConfig(r=2, target_modules=[table])
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape))
        text = torch.tensor([[1, 2, 3, 4]])
        before = model(text).logits
        return (model.merge_and_unload()(text).logits - before).abs().max().item()


for tied in (True, False):
    for table in ("lm_head", "wte"):
        change = moved(table, tied)
        much = "more than 0.1" if change > 0.1 else "less than 1e-4" if change < 1e-4 else change
        print(table, "tied:" if tied else "alone:", much)
PYTHON

got=$(venv/bin/python -W ignore merging.py)
expected="lm_head tied: more than 0.1
wte tied: more than 0.1
lm_head alone: less than 1e-4
wte alone: less than 1e-4"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
