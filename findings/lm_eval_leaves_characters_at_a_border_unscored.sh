#!/usr/bin/env bash
# lm_eval 0.4.13: HFLM leaves characters of a continuation unscored where a token reaches across the
# border between context and continuation.
#
# Context and continuation are encoded together, and as many ids are dropped as the context has by
# itself. In a vocabulary with the token "10", "1" + "0x" is "10", "x": the first is dropped as the
# context's, so "0" is scored nowhere and "x" is read behind "1". The options "0x" and "x" then have
# the same log-likelihood, and no message says so. It happens with any byte-pair vocabulary where a
# continuation does not begin with a space: digits, code, Chinese, target_delimiter: "".
#
# Seen: the ids of "1" and "0x" are ([1], [3]), which are those of "1" and "x"; equal scores.
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
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

vocabulary = {token: number for number, token in enumerate(["<s>", "1", "0", "x", "10"])}
made = Tokenizer(models.BPE(vocabulary, [("1", "0")]))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<s>", pad_token="<s>")
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=5, n_embd=8, n_layer=1, n_head=1, n_positions=8))
lm = HFLM(model, tokenizer=tokenizer, batch_size=1)
print(lm._encode_pair("1", "0x"), lm._encode_pair("1", "x"))
requests = [Instance("loglikelihood", {}, ("1", said), 0) for said in ("0x", "x")]
(one, _), (other, _) = lm.loglikelihood(requests, disable_tqdm=True)
print("equal" if one == other else "different")
PYTHON

got=$(HF_HUB_OFFLINE=1 venv/bin/python -W ignore seen.py 2> errors) || { cat errors; exit 1; }
expected="([1], [3]) ([1], [3])
equal"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
