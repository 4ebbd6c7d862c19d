#!/usr/bin/env bash
# The main job, end to end, on models small enough for any machine. Every command is shown as a user would type it.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf demo
mkdir demo
cd demo
# Threads that wait let go of their core: others may need it.
export OMP_WAIT_POLICY=passive

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() {
    printf '$'
    for word; do [[ $word == *' '* ]] && printf ' "%s"' "$word" || printf ' %s' "$word"; done
    printf '\n'
    "$@"
}

say "transformers saves a small CLIP tower and a small LLaMA (and a copy of the LLaMA as a .bin)"
run python ../docs/small_models.py models 2>transformers.log || { cat transformers.log; exit 1; }

say "Two folders from a hub become one CS checkpoint, with a fresh projector between them"
run mmconvert hf-to-cs --src models --init projector=uniform:1 --out cs

say "What is it?"
run mmconvert inspect cs

say "Back to the folders that the LLaVA source repository loads"
run mmconvert cs-to-llava --src cs --out llava

say "Nothing was lost: bit for bit, each step and both at once, and the folder against its own digests"
run mmconvert verify models cs
run mmconvert verify cs llava
run mmconvert verify models llava
run mmconvert verify llava

say "Would LLaVA load it, and rightly? From headers alone"
run mmconvert doctor llava

say "To an older release and back: the same tensors, its own words"
run mmconvert cs-to-cs --src cs --to-release 2.3 --out cs-2.3
run mmconvert cs-to-cs --src cs-2.3 --out cs-again
run cmp cs/config.yaml cs-again/config.yaml

say "The .bin copy gives the same checkpoint, byte for byte"
run mmconvert hf-to-cs --src models-bin --init projector=uniform:1 --out cs-from-bin -q
run cmp cs/model.mdl cs-from-bin/model.mdl

say "Both sides compute the same: mmsimple runs the CS checkpoint, transformers the other two"
run mmconvert verify models cs --forward
run mmconvert verify cs llava --forward

say "Pictures of a shape each, with captions, and with questions of its colour"
run python ../docs/small_pictures.py .

say "A params file for each phase: this model, and all else as the small ones of the package say it"
run mmconvert cs-to-cs --src cs/config.yaml --params ../mmsimple/configs/tiny_phase1.yaml --out params1
run mmconvert cs-to-cs --src cs/config.yaml --params ../mmsimple/configs/tiny_phase2.yaml --out params2

say "How large is it, and what would train?"
run mmsimple validate params1/config.yaml

say "Phase 1: of captions the projector learns"
run mmsimple prepare --annotations captions.json --images images --tokenizer models/llama-small \
    --phase 1 --config params1/config.yaml --out data/phase1
run mmsimple train params1/config.yaml --model-dir phase1 --init-from cs

say "Phase 2: of questions and answers the language model learns, too"
run mmsimple prepare --annotations questions.json --images images --tokenizer models/llama-small \
    --phase 2 --config params2/config.yaml --out data/phase2
run mmsimple train params2/config.yaml --model-dir phase2 --init-from phase1/checkpoint_40.mdl
run mmsimple plot phase2

say "What was trained becomes LLaVA's folders, and they compute the same"
run mmconvert cs-to-llava --src phase2/checkpoint_40.mdl --out llava-trained
run mmconvert verify phase2/checkpoint_40.mdl llava-trained --forward

say "What does it say of pictures that it has not seen?"
run mmsimple generate --checkpoint llava-trained --image unseen/red.png --prompt "What colour is it?"
run mmsimple generate --checkpoint llava-trained --image unseen/blue.png --prompt "What colour is it?"

say "Done: demo/llava-trained is ready to load, demo/phase2/plot.png shows how its loss fell"
