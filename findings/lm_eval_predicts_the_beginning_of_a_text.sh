#!/usr/bin/env bash
# lm_eval 0.4.13: HFLM counts the probability of the beginning-of-text token in the log-likelihood of
# whole texts, for tokenizers that write one (Llama's, Gemma's, Mistral's).
#
# loglikelihood_rolling encodes a text with its special tokens, then puts the beginning in front to
# predict the first token from. So the model reads <s><s>text and is asked how likely a second <s> is
# behind the first, which no training text has. Word and byte perplexities of such models are worse
# by that much a document (much in short ones) than those of models whose tokenizers write no
# beginning, and all later tokens are read behind two of them.
#
# Seen: the log-likelihood of "xy" is that of three tokens behind <s>, not of two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lm_eval==0.4.13 transformers==5.23.0 torch==2.13.0 accelerate==1.15.0
cd "$folder"

cat > seen.py <<'PYTHON'
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

made = Tokenizer(models.BPE({"<s>": 0, "x": 1, "y": 2}, []))
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=3, n_embd=8, n_layer=1, n_head=1, n_positions=8))


def likelihood(ids):
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logprobs[place, token]) for place, token in enumerate(ids[1:]))


for writes_beginning in (False, True):
    if writes_beginning:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    names = {"bos_token": "<s>", "eos_token": "<s>", "pad_token": "<s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    lm = HFLM(model, tokenizer=tokenizer, batch_size=1)
    request = Instance("loglikelihood_rolling", {}, ("xy",), 0)
    (found,) = lm.loglikelihood_rolling([request], disable_tqdm=True)
    for ids in ([0, 1, 2], [0, 0, 1, 2]):
        if abs(found - likelihood(ids)) < 1e-4:
            print("text as the model reads it:", ids)
PYTHON

got=$(HF_HUB_OFFLINE=1 venv/bin/python -W ignore seen.py 2> errors) || { cat errors; exit 1; }
expected="text as the model reads it: [0, 1, 2]
text as the model reads it: [0, 0, 1, 2]"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
