"""Every refusal: its exit code, one or two lines that say what and where and what to do, and nothing left behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
Tensors = dict[str, torch.Tensor]
Case = Callable[[Path, Make], Path]


def said(done: CompletedProcess[str]) -> str:
    """The message, which is one or two lines and the last thing on stderr."""
    lines = done.stderr.splitlines()
    start = next(at for at, line in enumerate(lines) if line.lower().startswith("error"))
    assert 1 <= len(lines) - start <= 2, done.stderr
    assert "Traceback" not in done.stderr
    return "\n".join(lines[start:])


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- usage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hf-to-cs", "--out", "out"), ["--src"]),
        (("hf-to-cs", "--src", "absent", "--out", "out"), ["absent", "no such file or folder"]),
        (("hf-to-cs", "--src", ".", "--out", "out", "--frobnicate"), ["--frobnicate"]),
        (("hf-to-cs", "--src", "."), ["--out is missing"]),
        (("hf-to-cs", "--src", ".", "--out", "out", "--max-shard-size", "many"), ["'many'", "5GB"]),
        (("hf-to-cs", "--src", ".", "--out", "out", "--to-release", "newest"), ["--to-release", "2.10"]),
        (("hf-to-cs", "--src", ".", "--out", "out", "--log-file", "no/such/log"), ["--log-file no/such/log"]),
        (("frobnicate",), ["frobnicate"]),
        (("verify", "absent"), ["absent", "no such file or folder"]),
    ],
)
def test_what_cannot_be_carried_out_is_a_usage_error(
    mmconvert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = mmconvert(*arguments)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert entries(tmp_path) == set()


NOTHING_TO_ACT_ON = [
    ("hf-to-cs", "llama", ("--config", "params.yaml"), "--config describes a CS checkpoint"),
    ("hf-to-cs", "llama", ("--from-release", "2.4"), "--from-release is for CS sources"),
    ("hf-to-cs", "clip", ("--tokenizer", "."), "--tokenizer: there is none here to replace"),
    ("hf-to-cs", "llama", ("--tower", "text"), "--tower is for LLaVA sources"),
    ("hf-to-cs", "llama", ("--vision-tower", "."), "--vision-tower is for sources with a tower"),
    ("hf-to-cs", "llama", ("--init", "projector=uniform:1"), "--init projector"),
    ("convert --to hf", "llava", ("--params", "params.yaml"), "--params is for CS targets"),
    ("hf-to-cs", "llama", ("--encoder", "0"), "--encoder is for CS sources"),
    ("hf-to-cs", "llama", ("--max-shard-size", "1GB"), "--max-shard-size is for safetensors"),
    ("hf-to-cs", "llava", ("--tower-path", "relative"), "--tower-path is for targets whose config says"),
    ("convert --to hf", "llava", ("--container", "mdl"), "--container mdl is for CS targets"),
    ("convert --to cs-2.4", "llama", ("--to-release", "2.5"), "cs-2.4 names release 2.4, --to-release 2.5"),
]


@pytest.mark.parametrize(("command", "model", "option", "why"), NOTHING_TO_ACT_ON)
def test_an_option_that_has_nothing_to_act_on_is_a_usage_error(
    mmconvert: Run,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    model: str,
    option: tuple[str, str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("trainer: {}\n")
    done = mmconvert(*command.split(), "--src", request.getfixturevalue(model), "--out", "out", *option)
    assert done.returncode == 2
    assert why in said(done)
    assert entries(tmp_path) == {"params.yaml"}


# --- input ----------------------------------------------------------------------------------------------------------


def edited(change: Callable[[Tensors], object], **config: Any) -> Case:
    return lambda folder, make: make(folder, edit=change, **config)


def corrupt(folder: Path, make: Make) -> Path:
    file = make(folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return folder


def single_beside_index(folder: Path, make: Make) -> Path:
    make(folder, shards=2)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model.safetensors")
    return folder


def no_weights(folder: Path, make: Make) -> Path:
    (make(folder) / "model.safetensors").unlink()
    return folder


def broken_config(text: str) -> Case:
    def case(folder: Path, make: Make) -> Path:
        (make(folder) / "config.json").write_text(text)
        return folder

    return case


def linked(name: str) -> Case:
    """A file that is a link to one beside the folder."""

    def case(folder: Path, make: Make) -> Path:
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir(parents=True)
        source = make(folder / "source")
        (source / name).rename(elsewhere / name)
        (source / name).symlink_to(f"../elsewhere/{name}")
        return source

    return case


Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
REFUSED: dict[str, tuple[Case, list[str]]] = {
    "a truncated file": (corrupt, ["model.safetensors", "truncated"]),
    "a missing tensor": (edited(lambda t: t.pop(Q_PROJ)), [Q_PROJ, "missing", "48 x 48"]),
    "a tensor too many": (edited(lambda t: t.update(stray=torch.ones(3))), ["model.safetensors: stray", "no tensor"]),
    "a tensor of another shape": (
        edited(lambda t: t.update({Q_PROJ: torch.ones(48, 47)})),
        [Q_PROJ, "48 x 47", "48 x 48"],
    ),
    "companions of quantised weights": (
        edited(lambda t: t.update({Q_PROJ + "_scale_inv": torch.ones(1)})),
        [Q_PROJ + "_scale_inv", "quantised", "convert the weights it was made from"],
    ),
    "a single file beside an index": (single_beside_index, ["model.safetensors.index.json", "stale"]),
    "another architecture": (edited(lambda t: None, model_type="gpt2"), ["config.json", "'gpt2'", "mmconvert list"]),
    "a field that CS cannot say": (edited(lambda t: None, partial_rotary_factor=0.5), ["partial_rotary_factor"]),
    "a size beyond reason": (broken_config('{"model_type": "llama", "num_hidden_layers": 1099511627776}'), ["config"]),
    "a size of zero": (broken_config('{"model_type": "llama", "hidden_size": 0}'), ["config.json", "hidden_size"]),
    "a size that is no integer": (
        broken_config('{"model_type": "llama", "num_hidden_layers": 2.0}'),
        ["config.json", "num_hidden_layers: 2.0", "integer"],
    ),
    "a config that links out of its folder": (linked("config.json"), ["config.json: links out of its folder"]),
    "a tokenizer that links out of its folder": (
        linked("tokenizer.model"),
        ["tokenizer.model: links out of its folder"],
    ),
    "a config that is no JSON": (broken_config("{"), ["config.json"]),
    "a config with a key twice": (broken_config('{"model_type": "llama", "model_type": "mistral"}'), ["model_type"]),
    "no weights": (no_weights, ["no weights", "model.safetensors"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_input_is_refused_before_anything_is_written(
    mmconvert: Run, make_llama: Make, tmp_path: Path, name: str
) -> None:
    case, words = REFUSED[name]
    source = case(tmp_path / "source", make_llama)
    done = mmconvert("hf-to-cs", "--src", source, "--out", tmp_path / "out")
    assert done.returncode == 3
    message = said(done)
    assert all(word in message for word in words), message
    assert entries(tmp_path) == {"source"}


def test_a_cs_file_that_is_damaged_is_refused(mmconvert: Run, clip: Path, tmp_path: Path) -> None:
    mmconvert("hf-to-cs", "--src", clip, "--out", tmp_path / "cs")
    file = tmp_path / "cs" / "model.mdl"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    done = mmconvert("cs-to-hf", "--src", tmp_path / "cs", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "model.mdl" in said(done)
    assert entries(tmp_path) == {"cs"}


@pytest.mark.parametrize("pattern", ["(.+)+X$", "(a|b)*c", ".*.*.*.*.*X", "(?:x{2}){9}", "["])
def test_a_freeze_pattern_that_runs_away_or_is_none_is_refused(
    mmconvert: Run, llava: Path, tmp_path: Path, pattern: str
) -> None:
    mmconvert("llava-to-cs", "--src", llava, "--out", tmp_path / "cs", "--container", "safetensors")
    params = tmp_path / "cs" / "config.yaml"
    params.write_text(params.read_text().replace("^image_model.image_model_list", f"'{pattern}'"))
    done = mmconvert("cs-to-llava", "--src", tmp_path / "cs", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "freeze holds" in said(done)


# --- no conversion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("llava-to-cs", ["a llama in format hf", "this command reads llava", "convert --to cs"]),
        ("convert --to onnx", ["no way from hf to onnx", "hf -> cs"]),
        ("convert --to cs-new", ["cs-new", "2.10"]),
    ],
)
def test_a_way_that_does_not_exist_is_told_with_those_that_do(
    mmconvert: Run, llama: Path, tmp_path: Path, command: str, words: list[str]
) -> None:
    done = mmconvert(*command.split(), "--src", llama, "--out", tmp_path / "out")
    assert done.returncode == 4
    message = said(done)
    assert all(word in message for word in words), message
    assert entries(tmp_path) == set()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("hf-to-cs", ["a llama in format cs", "this command reads hf and llava"]),
        ("cs-to-llava", ["llama: no way from cs to llava", "cs -> hf"]),
        ("cs-to-hf --to-release 2.4", ["hf has no releases", "--to-release"]),
        ("cs-to-cs --to-release 3.0", ["CS release 3.0 is not known; 1.9 to 2.10 are"]),
    ],
)
def test_what_a_cs_llama_cannot_become_is_said(
    mmconvert: Run, llama: Path, tmp_path: Path, command: str, words: list[str]
) -> None:
    mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--container", "safetensors")
    done = mmconvert(*command.split(), "--src", tmp_path / "cs", "--out", tmp_path / "out")
    assert done.returncode == 4
    message = said(done)
    assert all(word in message for word in words), message
    assert entries(tmp_path) == {"cs"}


# --- output ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("full", ["full: exists and is not empty", "--overwrite"]),
        ("file", ["file: exists and is not a folder"]),
        ("link", ["link: is a symbolic link"]),
        ("source", ["source: is the source"]),
        ("source/below", ["below: lies inside the source"]),
        (".", ["holds the source"]),
    ],
)
def test_a_target_that_must_not_be_written_is_refused(
    mmconvert: Run, make_llama: Make, tmp_path: Path, out: str, words: list[str]
) -> None:
    source = make_llama(tmp_path / "source")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("full")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = mmconvert("hf-to-cs", "--src", source, "--out", tmp_path / out)
    assert done.returncode == 5
    message = said(done)
    assert all(word in message for word in words), message
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_target_that_another_run_is_writing_is_refused(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    lock = tmp_path / ".out.mmconvert-lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "out")
    assert done.returncode == 5
    assert "another run is writing here" in said(done)
    assert entries(tmp_path) == {lock.name}


# --- the disk -------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    mmconvert: Run, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "out")
    assert done.returncode == 7
    message = said(done)
    assert str(tmp_path) in message
    assert "needed, 4.1 kB free" in message
    assert entries(tmp_path) == set()


def test_a_folder_that_may_not_be_written_is_a_disk_error(
    mmconvert: Run, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, whatever the mode says; so the refusal of the kernel is played.
    really = os.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> int:
        if Path(path).is_relative_to(tmp_path):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path, *arguments, **options)

    monkeypatch.setattr("mmconvert.staging.os.open", refuse)
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "out")
    assert done.returncode == 7
    assert "Permission denied" in said(done)


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_conversion_leaves_nothing(
    script: Path, make_llama: Make, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    source = make_llama(tmp_path / "source", hidden_size=512, intermediate_size=4096, num_hidden_layers=8)
    out = tmp_path / "out"
    # Slow enough for a signal to arrive in time, however busy the machine is.
    slowly = ("--dtype", "fp32", "--digest", "sha256", "--verify", "bytes")
    with subprocess.Popen(
        [script, "hf-to-cs", "--src", source, "--out", out, *slowly], stderr=subprocess.PIPE, text=True
    ) as running:
        while not (tmp_path / ".out.mmconvert-staging" / "model.mdl").exists():
            assert running.poll() is None
            time.sleep(0.001)
        running.send_signal(number)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == code
    assert "Traceback" not in stderr
    assert entries(tmp_path) == {"source"}


def test_a_reader_that_goes_away_is_no_error(script: Path) -> None:
    done = subprocess.run(f"'{script}' list --json | head -c 1", shell=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[", "")


# --- the command itself ---------------------------------------------------------------------------------------------

COMMANDS = ["list", "inspect", "plan", "verify", "convert", "hf-to-cs", "llava-to-cs", "cs-to-hf", "cs-to-llava"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(mmconvert: Run, command: str) -> None:
    done = mmconvert(command, "-h")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: mmconvert {command}")


def test_the_version_is_told(shell: Run) -> None:
    from mmconvert import __version__

    assert shell("--version").stdout == f"mmconvert {__version__}\n"


def test_without_a_terminal_or_with_no_color_nothing_is_coloured(shell: Run, llama: Path) -> None:
    for arguments in (("list",), ("plan", "hf-to-cs", "--src", llama)):
        done = shell(*arguments, env={**os.environ, "NO_COLOR": "1", "FORCE_COLOR": ""})
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr


def test_every_json_document_says_its_schema(mmconvert: Run, llama: Path) -> None:
    for arguments in (("inspect", llama), ("plan", "hf-to-cs", "--src", llama), ("verify", llama, llama)):
        assert json.loads(mmconvert(*arguments, "--json").stdout)["schema"] == 1


def test_a_path_that_is_no_text_is_shown_escaped(shell: Run, llama: Path, tmp_path: Path) -> None:
    place = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.symlink(llama, place)
    done = shell("inspect", place, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == place


def test_nor_does_a_name_move_the_cursor(shell: Run, llava: Path, tmp_path: Path) -> None:
    place = tmp_path / "red\x1b[31m"
    os.symlink(llava, place)
    for arguments in (
        ("inspect", place),
        ("doctor", place),
        ("inspect", tmp_path / "no\x1b[31m"),
        ("verify", place, place),
    ):
        done = shell(*arguments)
        assert "\x1b" not in done.stdout + done.stderr
        assert "\\x1b[31m" in done.stdout + done.stderr or arguments[0] == "verify"


def test_a_closed_stdout_and_a_full_stderr_are_no_bugs(script: Path, llama: Path) -> None:
    for command, code in ((f"{script} list >&-", 0), (f"{script} inspect nope 2>/dev/full", 2)):
        if "full" not in command or Path("/dev/full").exists():
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (code, "")
