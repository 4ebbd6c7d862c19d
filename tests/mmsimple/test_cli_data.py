"""`mmsimple prepare` and `mmsimple generate` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from mmconvert.errors import UsageError
from mmsimple.data.h5 import Layout, read_layout
from mmsimple.device import device_of
from tests.mmsimple.data.pictures import draw
from tests.mmsimple.sections import examples

if TYPE_CHECKING:
    from tests.conftest import Run

LLAVA = Path(__file__).parents[1] / "golden" / "llava" / "tiny_src"
TOKENIZER = LLAVA / "text_model_llava"


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Annotations, pictures and a params file whose model the tokenizer fits."""
    draw(tmp_path / "images" / "a.png", 0)
    said = [{"from": "human", "value": "<image>\na"}, {"from": "gpt", "value": "b"}]
    records = [{"image": "a.png", "conversations": said}, {"image": "none.png", "conversations": said}]
    (tmp_path / "annotations.json").write_text(json.dumps(records))
    model = {**examples.MMSIMPLE, "text_model": {**examples.TEXT, "vocab_size": 320, "max_position_embeddings": 400}}
    loader = {"max_num_img": 3}
    params = {"trainer": {"init": {"model": model}, "fit": {"train_dataloader": loader}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
    return {
        "--annotations": tmp_path / "annotations.json",
        "--images": tmp_path / "images",
        "--tokenizer": TOKENIZER,
        "--config": tmp_path / "params.yaml",
        "--out": tmp_path / "out",
    }


def arguments(inputs: dict[str, Path], **more: Any) -> list[object]:
    options = {**inputs, **{f"--{name.replace('_', '-')}": value for name, value in more.items()}}
    return [each for option in options.items() for each in option]


# --- prepare --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "template"), [(1, "plain"), (2, "vicuna_v1")])
def test_prepare_writes_files_that_fit_the_model(
    phase: int, template: str, inputs: dict[str, Path], mmsimple: Run
) -> None:
    done = mmsimple("prepare", *arguments(inputs, phase=phase))
    assert (done.returncode, done.stderr) == (0, "")
    out = inputs["--out"]
    assert read_layout(out / "data-00000.h5") == (Layout(400, 3, 4), 1)
    assert f"{out}: 1 samples of 2 records" in done.stdout
    assert "skipped: 1 image missing (records 1)" in done.stdout
    params = json.loads((out / "data_params.json").read_text("utf-8"))
    assert (params["phase"], params["template"]) == (phase, template)


def test_prepare_gives_scripts_one_document(inputs: dict[str, Path], mmsimple: Run) -> None:
    done = mmsimple(
        "prepare", *arguments(inputs, phase=2, max_num_img=1, max_seq_length=300, template="llama_2"), "--json"
    )
    found = json.loads(done.stdout)
    assert (found["schema"], found["samples"], found["out"]) == (1, 1, str(inputs["--out"]))
    assert found["skipped"]["image missing"]["count"] == 1
    assert (found["max_num_img"], found["max_sequence_length"], found["template"]) == (1, 300, "llama_2")


def test_where_nothing_is_left_prepare_ends_with_3(inputs: dict[str, Path], mmsimple: Run) -> None:
    (inputs["--images"] / "a.png").unlink()
    done = mmsimple("prepare", *arguments(inputs, phase=2))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: annotations.json: no record is left: 2 image missing\n"
    assert not inputs["--out"].exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"phase": 3}, 2, "--phase"),
        ({"phase": 1, "template": "vicuna_v1"}, 2, "phase 1 is captions alone"),
        ({"phase": 2, "max_seq_length": 401}, 2, "has 400 positions"),
        ({"phase": 2, "template": "tokenizer"}, 3, "no chat template of its own"),
        ({"phase": 2, "template": "llava_llama_3"}, 3, "takes <|begin_of_text|>"),
        ({"phase": 2, "template": "vicuna"}, 2, "--template"),
    ],
)
def test_what_prepare_cannot_do_is_told_in_a_line_or_two(
    more: dict[str, Any], code: int, said: str, inputs: dict[str, Path], mmsimple: Run
) -> None:
    done = mmsimple("prepare", *arguments(inputs, **more))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") <= 2
    assert not inputs["--out"].exists()


def test_a_config_of_a_model_without_pictures_is_refused(inputs: dict[str, Path], mmsimple: Run) -> None:
    inputs["--config"].write_text(yaml.safe_dump({"model": {**examples.LLAMA, "name": "llama"}}))
    done = mmsimple("prepare", *arguments(inputs, phase=2))
    assert done.returncode == 2
    assert "reads no pictures" in done.stderr


# --- generate -------------------------------------------------------------------------------------------------------


def test_generate_answers_about_pictures(tmp_path: Path, mmsimple: Run) -> None:
    one, other = draw(tmp_path / "a.png", 0), draw(tmp_path / "b.png", 1)
    said = ["--checkpoint", LLAVA, "--max-new-tokens", 6]
    plain = mmsimple("generate", *said, "--image", one, "--prompt", "What?")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout.endswith("\n")
    assert plain.stdout.strip()
    assert mmsimple("generate", *said, "--image", one, "--prompt", "<image>\nWhat?").stdout == plain.stdout
    assert mmsimple("generate", *said, "--image", other, "--prompt", "What?").stdout != plain.stdout
    both = mmsimple("generate", *said, "--image", one, "--image", other, "--prompt", "a <image> b <image> c")
    assert both.returncode == 0
    assert mmsimple("generate", *said, "--prompt", "Hello").returncode == 0


def test_generate_gives_scripts_one_document(mmsimple: Run) -> None:
    said = ["--checkpoint", LLAVA, "--max-new-tokens", 6, "--prompt", "Hello"]
    found = json.loads(mmsimple("generate", *said, "--json").stdout)
    assert (found["schema"], found["template"]) == (1, "vicuna_v1")
    assert found["text"] == mmsimple("generate", *said).stdout.removesuffix("\n")
    assert found["prompt_tokens"] > 10


def test_drawn_answers_are_those_of_their_seed(mmsimple: Run) -> None:
    said = ["generate", "--checkpoint", LLAVA, "--prompt", "Hello", "--max-new-tokens", 8, "--temperature", 3]
    texts = [mmsimple(*said, "--seed", seed, "--top-k", 200, "--top-p", 0.99).stdout for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--prompt", "<image><image>"], 2, "says <image> 2 times, and there are 1 images"),
        (["--prompt", "a</s>"], 2, "special token in the text"),
        (["--prompt", "word " * 400], 2, "and the model has 256"),
        (["--prompt", "a", "--temperature", -1], 2, "--temperature"),
        (["--prompt", "a", "--top-p", 0], 2, "--top-p"),
        (["--prompt", "a", "--top-p", "nan"], 2, "top_p nan"),
        (["--prompt", "a", "--temperature", "nan"], 2, "temperature nan"),
        (["--prompt", "a", "--seed", 2**64], 2, "--seed"),
        (["--prompt", "\udcff"], 2, "no text that can be written"),
        (["--prompt", "a", "--template", "tokenizer"], 3, "no chat template"),
    ],
)
def test_what_generate_cannot_do_is_told_in_a_line_or_two(
    more: list[Any], code: int, said: str, tmp_path: Path, mmsimple: Run
) -> None:
    picture = draw(tmp_path / "a.png", 0)
    done = mmsimple("generate", "--checkpoint", LLAVA, "--image", picture, *more)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") <= 2


@pytest.mark.parametrize("content", [b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path, mmsimple: Run) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    done = mmsimple("generate", "--checkpoint", LLAVA, "--image", tmp_path / "a.jpg", "--prompt", "What?")
    assert (done.returncode, done.stdout) == (3, "")
    assert str(tmp_path / "a.jpg") in done.stderr


@pytest.mark.parametrize("said", [True, 2**40, "2", [1], -3])
def test_a_number_of_pictures_that_is_none_is_refused(said: Any, inputs: dict[str, Path], mmsimple: Run) -> None:
    params = yaml.safe_load(inputs["--config"].read_text("utf-8"))
    params["trainer"]["fit"]["train_dataloader"]["max_num_img"] = said
    inputs["--config"].write_text(yaml.safe_dump(params), "utf-8")
    done = mmsimple("prepare", *arguments(inputs, phase=2))
    assert done.returncode in (2, 3)
    assert "max_num_img" in done.stderr or "do not fit" in done.stderr
    assert done.stderr.count("\n") <= 2


def test_the_answer_ends_where_nobody_reads_it() -> None:
    script = Path(sysconfig.get_path("scripts"), "mmsimple")
    said = ["generate", "--checkpoint", str(LLAVA), "--prompt", "Hello", "--max-new-tokens", "100"]
    child = subprocess.Popen([script, *said], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(1)
    child.stdout.close()
    assert (child.wait(timeout=60), child.stderr.read()) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_disk_ends_with_7(more: list[str]) -> None:
    script = Path(sysconfig.get_path("scripts"), "mmsimple")
    said = ["generate", "--checkpoint", str(LLAVA), "--prompt", "Hello", "--max-new-tokens", "3"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([script, *said, *more], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (7, "error: stdout: No space left on device\n")


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="torch finds no GPU here"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == torch.device("cuda")
