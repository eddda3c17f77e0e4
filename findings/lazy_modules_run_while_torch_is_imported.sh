#!/usr/bin/env bash
# torch 2.13.0 and importlib.util.LazyLoader (Python 3.11): `import torch` runs every module that
# waits in sys.modules to be loaded lazily, although nothing of it was asked for.
#
# While torch is imported, its decorators ask `inspect` for the source of functions. `inspect`
# looks through sys.modules with hasattr(module, "__file__"), and for a module of LazyLoader any
# attribute means: load now. The module's own `import torch` then gets a torch that is half there;
# whatever it needs beyond that fails, with an error that speaks of a circular import in torch.
#
# A stand-in that is not in sys.modules is not found by `inspect`, and waits as it should.
#
# Seen: "torch has vmap: False" from the lazy module, before "torch is imported".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cd "$folder"

cat > later.py <<'PYTHON'
import torch

print("torch has vmap:", hasattr(torch, "vmap"))
PYTHON

cat > lazily.py <<'PYTHON'
import importlib.util
import sys

spec = importlib.util.find_spec("later")
spec.loader = importlib.util.LazyLoader(spec.loader)
module = importlib.util.module_from_spec(spec)
sys.modules["later"] = module
spec.loader.exec_module(module)  # LazyLoader: nothing runs yet
print("nothing has run")

import torch

print("torch is imported")
PYTHON

got=$(venv/bin/python -W ignore lazily.py)
expected="nothing has run
torch has vmap: False
torch is imported"
echo "$got"
[ "$got" = "$expected" ] || { echo "this has changed"; exit 1; }
