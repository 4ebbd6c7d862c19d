#!/usr/bin/env bash
# The main job, end to end, on models small enough for any machine. Every command is shown as a user would type it.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf demo
mkdir demo

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say "transformers saves a small CLIP tower and a small LLaMA (and a copy of the LLaMA as a .bin)"
run python docs/small_models.py demo/models 2>demo/transformers.log || { cat demo/transformers.log; exit 1; }

say "Two folders from a hub become one CS checkpoint, with a fresh projector between them"
run mmconvert hf-to-cs --src demo/models --init projector=uniform:1 --out demo/cs

say "What is it?"
run mmconvert inspect demo/cs

say "Back to the folders that the LLaVA source repository loads"
run mmconvert cs-to-llava --src demo/cs --out demo/llava

say "Nothing was lost: bit for bit, each step and both at once, and the folder against its own digests"
run mmconvert verify demo/models demo/cs
run mmconvert verify demo/cs demo/llava
run mmconvert verify demo/models demo/llava
run mmconvert verify demo/llava

say "Would LLaVA load it, and rightly? From headers alone"
run mmconvert doctor demo/llava

say "To an older release and back: the same tensors, its own words"
run mmconvert cs-to-cs --src demo/cs --to-release 2.3 --out demo/cs-2.3
run mmconvert cs-to-cs --src demo/cs-2.3 --out demo/cs-again
run cmp demo/cs/config.yaml demo/cs-again/config.yaml

say "The .bin copy gives the same checkpoint, byte for byte"
run mmconvert hf-to-cs --src demo/models-bin --init projector=uniform:1 --out demo/cs-from-bin -q
run cmp demo/cs/model.mdl demo/cs-from-bin/model.mdl

say "How large is it, and what would train?"
run mmsimple validate demo/cs

say "Both sides compute the same: mmsimple runs the CS checkpoint, transformers the other two"
run mmconvert verify demo/models demo/cs --forward
run mmconvert verify demo/cs demo/llava --forward

say "Done: demo/cs is ready to train, demo/llava to load"
