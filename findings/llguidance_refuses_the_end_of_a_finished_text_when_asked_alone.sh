#!/usr/bin/env bash
# llguidance 1.9.1: whether a stop token is valid depends on how many tokens are asked about at once.
#
# `LLMatcher.validate_tokens(tokens)` says how many of the tokens can be committed in the present
# state. Behind a text to which nothing can be added (`ab` under the expression `ab?`) the mask holds
# the stop token and nothing else, `consume_token` takes it, and asked before the last letter
# `validate_tokens([b, stop])` takes both. Asked at the end, `validate_tokens([stop])` takes none.
# Behind `a`, where more could follow, it takes the stop token. So a program that asks whether a
# text may end here must use `is_accepting`.
#
# Seen: 2 of 2, then 0 of 1, in a state whose mask is the stop token alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q llguidance==1.9.1 numpy==2.4.6

cat > "$folder/ends.py" <<'PYTHON'
import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask


class Bytes:
    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [bytes([byte]) for byte in range(256)] + [b"<stop>"]

    def __call__(self, text):
        return list(text)


A, B, STOP = 97, 98, 256
tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))
matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_regex("ab?"), log_level=0)


def allowed():
    mask = allocate_token_bitmask(1, 257)
    fill_next_token_bitmask(matcher, mask)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


matcher.consume_token(A)
print("a: allowed", allowed(), "stop alone", matcher.validate_tokens([STOP]))
print("a: b and stop", matcher.validate_tokens([B, STOP]))
matcher.consume_token(B)
print("ab: allowed", allowed(), "accepting", matcher.is_accepting())
print("ab: stop alone", matcher.validate_tokens([STOP]))
print("ab: stop consumed", matcher.consume_token(STOP), "error", matcher.is_error())
PYTHON

got=$("$folder/venv/bin/python" "$folder/ends.py")
expected="a: allowed [98, 256] stop alone 1
a: b and stop 2
ab: allowed [256] accepting True
ab: stop alone 0
ab: stop consumed True error False"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
