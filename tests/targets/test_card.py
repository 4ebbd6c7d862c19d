"""The model card: what it says of a conversion, and that its commands and code do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import mmconvert
from mmconvert import Options

Make = Callable[..., Path]
SOURCE = Path(__file__).parents[1] / "golden/llava/tiny_src"
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def card(folder: Path) -> str:
    return (folder / "README.md").read_text("utf-8")


def convert(source: Path, out: Path, to: str, **options: object) -> Path:
    mmconvert.convert(source, out, to, options=Options(**options), fsync=False)  # type: ignore[arg-type]
    return out


def code(folder: Path) -> str:
    """The card's first block of Python, where the folder stands."""
    found = CODE.search(card(folder))
    assert found is not None
    return found[1].replace("DIR", str(folder))


def run(script: str, where: Path) -> str:
    offline = "import os\nos.environ['HF_HUB_OFFLINE'] = '1'\n"
    done = subprocess.run(
        [sys.executable, "-c", offline + script], cwd=where, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_what_it_is_and_what_it_was_made_from(llava: Path, tmp_path: Path) -> None:
    said = card(convert(llava, tmp_path / "out", "llava-hf"))
    assert "# mmsimple-llava, in the layout llava-hf" in said
    assert "- **From:** a checkpoint of mmsimple-llava llava." in said
    assert "mmsimple-llava: llava -> cs; mmsimple-llava: cs -> llava-hf" in said
    assert f"mmconvert {mmconvert.__version__}" in said
    assert re.search(r"\*\*What:\*\* [\d,]+ parameters in \d+ tensors \(\d+ of bfloat16, \d+ of float32\)", said)


def test_it_says_what_was_asked_for(llava: Path, tmp_path: Path) -> None:
    said = card(convert(llava, tmp_path / "out", "llava", take=None, only="projector"))
    assert "# The projector of a mmsimple-llava, in the layout llava" in said
    assert "- **Asked for:** `only` projector." in said
    assert "--model-base LANGUAGE_MODEL" in said


def test_it_knows_no_place_of_this_machine(llava: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert(llava, tmp_path / name / "out", "llava")
    one, two = (card(tmp_path / name / "out") for name in ("one", "two"))
    assert one == two
    assert str(tmp_path) not in one


@pytest.mark.parametrize(("kind", "mode"), [("llava_llama", "vicuna_v1"), ("llava_mistral", "mistral_instruct")])
def test_llavas_scripts_are_given_the_folder_and_the_conversation(
    make_llava: Make, tmp_path: Path, kind: str, mode: str
) -> None:
    window = {"sliding_window": 16} if kind == "llava_mistral" else {}
    out = convert(make_llava(tmp_path / "source", model_type=kind, **window), tmp_path / "out", "llava")
    (text,) = (each.name for each in out.iterdir() if each.name.startswith("text_model"))
    said = card(out)
    assert f"python -m llava.eval.model_vqa_loader --model-path DIR/{text} " in said
    assert f"--conv-mode {mode}\n" in said
    assert f"python -m lmms_eval --model llava --model_args pretrained=DIR/{text},conv_template={mode} " in said


def test_lmms_eval_is_told_which_of_its_two_llavas_this_is(llava: Path, tmp_path: Path) -> None:
    said = card(convert(llava, tmp_path / "out", "llava-hf"))
    assert "python -m lmms_eval --model llava_hf --model_args pretrained=DIR --tasks mme" in said


@pytest.mark.parametrize(
    ("to", "only", "kind"),
    [
        ("llava-hf", None, "LlavaForConditionalGeneration"),
        ("hf", None, "AutoModelForCausalLM"),
        ("hf", "text", "AutoModelForCausalLM"),
    ],
)
def test_a_language_model_is_loaded_as_it_was_saved(
    llava: Path, tmp_path: Path, to: str, only: str | None, kind: str
) -> None:
    """Transformers 4 makes float32 of everything, unless it is asked not to."""
    said = card(convert(llava, tmp_path / "out", to, only=only))
    (line,) = (line for line in said.splitlines() if f"{kind}.from_pretrained(" in line)
    assert line.endswith(', torch_dtype="auto")')


def test_a_drawn_checkpoint_has_none(llama: Path, tmp_path: Path) -> None:
    mmconvert.synth("llama", llama / "config.json", tmp_path / "out", fsync=False)
    assert not (tmp_path / "out/README.md").exists()


def test_the_code_for_transformers_answers_about_a_picture(tmp_path: Path) -> None:
    out = convert(SOURCE, tmp_path / "out", "llava-hf")
    Image.new("RGB", (50, 24), (200, 30, 30)).save(tmp_path / "cat.jpg")
    assert "USER:" in run(code(out), tmp_path)


def test_the_code_for_parts_loads_them(llava: Path, tmp_path: Path) -> None:
    out = convert(llava, tmp_path / "out", "hf")
    assert run(code(out) + "\nprint(type(tower).__name__, type(language_model).__name__)", tmp_path).split() == [
        "CLIPVisionModel",
        "LlamaForCausalLM",
    ]


@pytest.mark.parametrize(("part", "name"), [("text", "model"), ("vision", "tower")])
def test_the_code_for_one_part_loads_it(llava: Path, tmp_path: Path, part: str, name: str) -> None:
    out = convert(llava, tmp_path / "out", "hf", only=part)
    kind = {"text": "LlamaForCausalLM", "vision": "CLIPVisionModel"}[part]
    assert run(code(out) + f"\nprint(type({name}).__name__)", tmp_path).strip() == kind
