"""Fetch real vocabularies for the tests: `python tests/vocabularies.py .vocabularies`.

The npm package js-tiktoken (MIT) carries those of GPT-2, GPT-4 and GPT-4o. This script fetches it,
writes them the way tiktoken does, and puts them under the names by which tiktoken finds them when
TIKTOKEN_CACHE_DIR is the folder. Each is checked against the SHA-256 that tiktoken expects.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from textenv.tokenizers.rank_files import provide_ranks, rank_files

PACKAGE = "js-tiktoken@1.0.21"
NAMES = ("r50k_base", "cl100k_base", "o200k_base")  # the first is GPT-2's


def missing(folder: Path) -> list[str]:
    """Names of the vocabularies that `folder` does not hold."""
    return [name for name in NAMES if not (folder / rank_files(name)[0].cache_name).exists()]


def ranks_of_module(source: str) -> str:
    """Contents of a .tiktoken file, one line a token, from those of a module of js-tiktoken.

    The module exports JSON; its `bpe_ranks` are lines of "! first_rank token token ...".
    """
    ranks = json.loads(source.removeprefix("export default ").rstrip("; \n"))["bpe_ranks"]
    lines = []
    for line in ranks.splitlines():
        _, first, *tokens = line.split(" ")
        lines += [f"{token} {rank}\n" for rank, token in enumerate(tokens, int(first))]
    return "".join(lines)


def fetch(folder: Path) -> None:
    """Put every vocabulary that `folder` does not hold yet into it."""
    names = missing(folder)
    if not names:
        return
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", "--silent", PACKAGE, "--pack-destination", scratch]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as package:
            for name in names:
                module = package.extractfile(f"package/dist/ranks/{name}.js")
                assert module is not None
                copy = Path(scratch) / f"{name}.tiktoken"
                copy.write_text(ranks_of_module(module.read().decode()))
                provide_ranks(name, copy, folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    fetch(Path(sys.argv[1]))
