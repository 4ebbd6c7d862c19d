"""llava-hf folders that a transformers of today saved, exported again for one of another time.

The client, which cannot load what was saved, must find every key of the export, and compute, generate, reply and
tokenize as today's transformers does with what was saved.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.clients.commands import Checks, convert, problem
from tests.clients.environments import Environment, own
from tests.clients.hugging_face import GOLDEN, Computed, apart, read, strangers
from tests.clients.llava_hf import INPUTS, TOLERANCE

TOKENIZER = GOLDEN / "llava" / "tiny_llava_hf_457"
SAME = ("generated", "reply", "ids", "question")


def check(client: Environment, folder: Path) -> Checks:
    """Every model of `inside/make_llava_hf.py`, in `client`; `folder` is for what is made on the way."""
    own().run("make_llava_hf.py", folder / "made", TOKENIZER)
    sources = sorted((folder / "made").iterdir())
    (folder / "exports").mkdir()
    exports = [convert("convert", made, folder / "exports" / made.name, "--to", "llava-hf") for made in sources]
    expected, found = compute(own(), sources), compute(client, exports)
    for made in sources:
        tokens = json.loads((made / "config.json").read_text("utf-8"))["image_token_index"]
        yield f"{made.name} of today", compare(expected[made.name], found[made.name], tokens)


def compute(client: Environment, folders: list[Path]) -> dict[str, Computed]:
    """What `client` makes of each folder, by the folder's name."""
    beside = folders[0].parent
    described = [
        {
            "folder": str(folder),
            "inputs": str(INPUTS),
            "target": str(folder.with_suffix(".safetensors")),
            "saved": str(beside.with_name(f"{beside.name}-saved") / folder.name),
        }
        for folder in folders
    ]
    jobs = beside.with_name(f"{beside.name}.json")
    jobs.write_text(json.dumps(described), "utf-8")
    client.run("compute_llava.py", jobs)
    return {Path(job["folder"]).name: read(Path(job["target"])) for job in described}


def compare(expected: Computed, found: Computed, tokens: int) -> str:
    """What is not as it was; numbers may differ by the order in which they were added up.

    Of the vocabulary the first `tokens` count, which are the language model's own: rows past them are made anew.
    """
    a, b = expected.outputs, found.outputs
    off = {
        "logits": apart(a["logits"][..., :tokens], b["logits"][..., :tokens]),
        "pixels": apart(a["pixels"], b["pixels"]),
    }
    faults = [f"{name} are off by {share:.1e}" for name, share in off.items() if not share <= TOLERANCE]
    for name in SAME:
        wanted, got = a[name].flatten().tolist(), b[name].flatten().tolist()
        if wanted != got or not wanted:
            faults.append(f"{name}: {got}, not {wanted}")
    return problem([*strangers(found), *faults])
