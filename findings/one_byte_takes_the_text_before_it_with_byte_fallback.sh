#!/usr/bin/env bash
# tokenizers 0.23.3: with the decoder ByteFallback (Llama 2's, for one), one token of a byte that is
# not text yet turns the text before it into U+FFFD, as far as that was written in bytes too. Not the
# incomplete character alone: every complete one next to it as well.
#
# So the text of some ids is not a beginning of the text of the same ids and one more, and what a
# person has read changes when a character begins. Python's own decoder and tiktoken keep the
# complete characters.
#
# Seen: "AB" and the first byte of a character in three byte tokens read as three U+FFFD; Python
# reads "AB" and one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3

cat > "$folder/bytes.py" <<'PYTHON'
from tokenizers import Tokenizer, decoders, models

vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
for text in (b"AB", b"AB\xe4", b"AB\xe4\xbd\xa0"):
    got, python = tokenizer.decode(list(text)), text.decode(errors="replace")
    print(ascii(got), ascii(python))
PYTHON

got=$("$folder/venv/bin/python" "$folder/bytes.py")
expected="'AB' 'AB'
'\\ufffd\\ufffd\\ufffd' 'AB\\ufffd'
'AB\\u4f60' 'AB\\u4f60'"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
