"""A folder is what its manifest says, to the last bit, or the check says what is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmconvert import digests, manifest
from mmconvert.containers.layout import FileLayout, Slot
from mmconvert.documents import Limits
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import UsageError
from mmconvert.execute import execute
from mmconvert.findings import Findings
from mmconvert.invent import Uniform
from mmconvert.manifest import check_folder
from mmconvert.plans import OutputFile, Plan, PlannedTensor
from mmconvert.remark import Remark

F32 = BY_NAME["float32"]


def tensor(key: str, count: int) -> PlannedTensor:
    return PlannedTensor(key, F32, (count,), Uniform(0, key, 1.0, F32, count), None, "uniform ±1, seed 0")


def convert(out: Path, digest: str = "xxh3") -> dict[str, Any]:
    """Two files with a key in common, gaps in their frames, an empty tensor in the middle of one, and a document."""
    slots = {"a": Slot(40, 24), "none": Slot(5, 0), "b": Slot(70, 8)}
    first = FileLayout("vision/model.mdl", 80, ((0, b"header of ten"), (64, b"mid")), slots)
    second = FileLayout("text/model.mdl", 24, ((0, b"head"),), {"a": Slot(8, 16)})
    plan = Plan(
        out,
        (
            OutputFile(first, (tensor("a", 6), tensor("none", 0), tensor("b", 2))),
            OutputFile(second, (tensor("a", 4),)),
        ),
        {"config.yaml": b"model: {}\n", "assets/tokenizer.json": b"{}", "assets/none": b""},
        dropped=(Remark("inv_freq", "recomputed"),),
        invented=(Remark("a", "not in the source"),),
        carried=("assets/tokenizer.json",),
        warnings=("tokenizer: 32001 entries for 32000 rows",),
        facts={"from": "hf", "to": "cs-2.10", "options": {"scale": 1e-05}},
    )
    return execute(plan, fsync=False, digest=digest)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    convert(tmp_path / "out")
    return tmp_path / "out"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and sign it again, as somebody could who knows how."""
    path = folder / manifest.NAME
    document = json.loads(path.read_bytes())
    change(document)
    del document["self"]
    document["self"] = digests.of("xxh3", manifest.render(document))
    path.write_bytes(manifest.render(document))


def test_the_manifest_says_where_every_tensor_lies_and_came_from(tmp_path: Path) -> None:
    document = convert(tmp_path / "out")
    assert document["tensors"][2] == {
        "key": "b",
        "file": "vision/model.mdl",
        "offset": 70,
        "bytes": 8,
        "dtype": "float32",
        "shape": [2],
        "source": None,
        "rule": "uniform ±1, seed 0",
        "digest": digests.of("xxh3", (tmp_path / "out/vision/model.mdl").read_bytes()[70:78]),
    }
    assert [(entry["file"], entry["key"]) for entry in document["tensors"]][-1] == ("text/model.mdl", "a")
    assert document["schema"] == 1
    assert document["to"] == "cs-2.10"
    assert document["dropped"] == [{"subject": "inv_freq", "why": "recomputed"}]
    assert document["carried"] == ["assets/tokenizer.json"]
    assert str(tmp_path) not in json.dumps(document)


@pytest.mark.parametrize("digest", ["xxh3", "sha256"])
def test_an_untouched_folder_has_no_problems(tmp_path: Path, digest: str) -> None:
    convert(tmp_path / "out", digest)
    report = check_folder(tmp_path / "out")
    assert report == Findings(tensors=4, nbytes=80 + 24 + 10 + 2)


def test_every_single_flipped_bit_is_found(folder: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        data = path.read_bytes()
        # All bits of the small files; of the manifest every byte, with a bit that moves on from byte to byte.
        bits = range(len(data) * 8) if path.name != manifest.NAME else range(0, len(data) * 8, 9)
        for bit in bits:
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            assert check_folder(folder).problems, (path, bit)
        path.write_bytes(data)
    assert not check_folder(folder).problems


def test_another_spelling_of_the_same_number_is_found(folder: Path) -> None:
    path = folder / manifest.NAME
    data = path.read_bytes()
    assert b"1e-05" in data
    path.write_bytes(data.replace(b"1e-05", b"1E-05"))  # one bit, and JSON reads the same
    assert check_folder(folder).problems == ["mmconvert.json: is damaged: it was changed after it was written"]


@pytest.mark.parametrize(
    ("name", "offset", "problem"),
    [
        ("vision/model.mdl", 0, "vision/model.mdl: header: is not what was written"),
        ("vision/model.mdl", 69, "vision/model.mdl: header: is not what was written"),
        ("vision/model.mdl", 77, "vision/model.mdl: b: is not what was written"),
        ("config.yaml", 3, "config.yaml: document: is not what was written"),
    ],
)
def test_a_problem_names_the_file_and_the_tensor(folder: Path, name: str, offset: int, problem: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[offset] ^= 1
    (folder / name).write_bytes(data)
    assert check_folder(folder).problems == [problem]


def test_what_cannot_be_looked_at_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look, scan = Path.lstat, os.scandir

    def lstat(path: Path) -> os.stat_result:
        if path.name == "config.yaml":
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    def scandir(path: str) -> Any:
        if Path(path).name == "assets":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    monkeypatch.setattr(os, "scandir", scandir)
    problems = check_folder(folder).problems
    assert "config.yaml: cannot be read: Permission denied" in problems
    assert "assets: cannot be read: Permission denied" in problems


def test_missing_added_and_cut_files_are_all_named(folder: Path) -> None:
    (folder / "assets/tokenizer.json").unlink()
    (folder / "assets/added.json").touch()
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").symlink_to("/etc/hosts")
    os.truncate(folder / "text/model.mdl", 23)
    assert check_folder(folder).problems == [
        "assets/added.json: is not in the manifest",
        "assets/tokenizer.json: is missing",
        "config.yaml: is a link or a device, not a file",
        "config.yaml: is missing",
        "text/model.mdl: has 23 bytes instead of 24",
    ]


@pytest.mark.parametrize("name", ["../outside", "/etc/hosts", "assets/../../outside"])
def test_a_name_that_leads_out_of_the_folder_is_never_opened(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_bytes(b"secret")
    rewrite(folder, lambda document: document["documents"].update({name: {"bytes": 6, "digest": ""}}))
    assert check_folder(folder).problems == [f"{name}: is missing"]


def listed(folder: Path) -> list[dict[str, Any]]:
    """The tensors of a manifest: `a` at 40 to 64, `none`, and `b` at 70 to 78 of one file, and `a` of another."""
    tensors: list[dict[str, Any]] = json.loads((folder / manifest.NAME).read_bytes())["tensors"]
    return tensors


def set_to(*path: str | int, value: object) -> Callable[[dict[str, Any]], object]:
    def change(document: Any) -> None:
        for part in path[:-1]:
            document = document[part]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_to("tensors", value=None),
        set_to("tensors", 0, value="a"),
        set_to("tensors", 0, "offset", value=-1),
        set_to("tensors", 0, "bytes", value="24"),
        set_to("tensors", 0, "file", value=["vision/model.mdl"]),
        set_to("files", value=[]),
        set_to("files", "vision/model.mdl", value=3),
        set_to("documents", "config.yaml", "bytes", value=1.5),
        set_to("tensors", 0, "offset", value=10**30),
        set_to("digest", value="md5"),
        set_to("documents", "vision/model.mdl", value={"bytes": 80, "digest": ""}),
    ],
)
def test_a_signed_manifest_without_sense_is_a_problem_and_no_crash(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(folder, change)
    assert check_folder(folder).problems


@pytest.mark.parametrize(("offset", "nbytes"), [(46, 24), (63, 9), (40, 24), (0, 80), (47, 1), (30, 11)])
def test_tensors_that_lie_upon_each_other_are_not_read_for_each_of_them(folder: Path, offset: int, nbytes: int) -> None:
    rewrite(folder, set_to("tensors", 2, value={**listed(folder)[2], "offset": offset, "bytes": nbytes}))
    (problem,) = check_folder(folder).problems
    assert "mmconvert.json: is damaged" in problem
    assert "lie upon each other" in problem


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": NaN}', b"1" * 5000])
def test_a_file_that_is_no_manifest_is_a_problem_and_no_crash(folder: Path, data: bytes) -> None:
    (folder / manifest.NAME).write_bytes(data)
    (problem,) = check_folder(folder).problems
    assert problem.startswith("mmconvert.json: is damaged")


def test_a_manifest_that_nobody_would_write_to_is_not_waited_for(folder: Path) -> None:
    (folder / manifest.NAME).unlink()
    os.mkfifo(folder / manifest.NAME)
    assert check_folder(folder).problems == [f"{folder / manifest.NAME}: is not a regular file"]


@pytest.mark.parametrize(("nbytes", "nodes"), [(10, 1000), (100_000, 10)])
def test_a_manifest_that_lists_more_than_any_is_not_made_sense_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, nbytes: int, nodes: int
) -> None:
    monkeypatch.setattr(manifest, "LIMITS", Limits(nbytes, nodes, nodes))
    (problem,) = check_folder(folder).problems
    assert f"more than {nodes} values" in problem or f"at most {nbytes}" in problem


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\u202e"])
def test_a_problem_can_be_printed_whatever_a_file_is_called(folder: Path, name: str) -> None:
    (folder / name).touch()
    rewrite(folder, lambda document: document["documents"].update({f"{name}!": {"bytes": 0, "digest": ""}}))
    shown = ascii(name)[1:-1]
    assert check_folder(folder).problems == [f"{shown}!: is missing", f"{shown}: is not in the manifest"]


def test_without_anything_to_compare_with_the_other_command_is_named(tmp_path: Path) -> None:
    convert(tmp_path / "out", "none")
    with pytest.raises(UsageError, match="mmconvert verify A B"):
        check_folder(tmp_path / "out")
    with pytest.raises(UsageError, match=r"has no mmconvert\.json"):
        check_folder(tmp_path)


def test_a_manifest_of_a_later_version_is_not_guessed_at(folder: Path) -> None:
    rewrite(folder, set_to("schema", value=2))
    with pytest.raises(UsageError, match="upgrade"):
        check_folder(folder)


def test_progress_hears_of_every_byte_checked(folder: Path) -> None:
    heard: list[int] = []

    class Listener:
        def start(self, total_bytes: int) -> None:
            heard.append(-total_bytes)

        def advance(self, nbytes: int) -> None:
            heard.append(nbytes)

        def finish(self) -> None:
            heard.append(0)

    check_folder(folder, Listener())
    assert heard[0] == -(80 + 24 + 10 + 2)
    assert sum(heard) == 0
    assert heard[-1] == 0
