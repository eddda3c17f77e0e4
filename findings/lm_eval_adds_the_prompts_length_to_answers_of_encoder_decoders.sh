#!/usr/bin/env bash
# lm_eval 0.4.13: HFLM's answers of encoder-decoders are longer than max_gen_toks, by the length of
# the longest prompt of their batch.
#
# generate_until asks transformers for max_length = tokens of the prompt + max_gen_toks, which is
# right for causal models, whose rows begin with the prompt. A decoder's row does not. So answers
# change with the batch size and with which prompts stand in one batch.
#
# Seen: max_gen_toks is 3; answers to prompts of 1, 5 and 9 tokens have 3, 7 and 11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lm_eval==0.4.13 transformers==5.23.0 torch==2.13.0 accelerate==1.15.0
cd "$folder"

cat > seen.py <<'PYTHON'
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

made = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "x": 2, "y": 3}, []))
names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names)
small = {
    f"{side}_{size}": number
    for side in ("encoder", "decoder")
    for size, number in {"layers": 1, "ffn_dim": 8, "attention_heads": 1}.items()
}
config = BartConfig(
    vocab_size=4, d_model=8, max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
    pad_token_id=1, decoder_start_token_id=0, forced_eos_token_id=None, **small
)
model = BartForConditionalGeneration(config)
model.final_logits_bias[0, 3] = 1e3  # it says y and nothing else
lm = HFLM(model, tokenizer=tokenizer, batch_size=1, backend="seq2seq", max_length=64)
for length in (1, 5, 9):
    asked = ("x" * length, {"max_gen_toks": 3, "until": []})
    (said,) = lm.generate_until([Instance("generate_until", {}, asked, 0)], disable_tqdm=True)
    print(length, said.count("y"))
PYTHON

got=$(HF_HUB_OFFLINE=1 venv/bin/python -W ignore seen.py 2> errors) || { cat errors; exit 1; }
expected="1 3
5 7
9 11"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
