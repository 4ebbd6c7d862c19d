"""A LLaVA that was moved or copied is pointed at its own tower, by one field, and nothing else of it changes."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mmconvert
from mmconvert import manifest
from mmconvert.errors import DiskError, InputRefused, UsageError, VerificationFailed
from mmconvert.relocation import Relocation, relocate

if TYPE_CHECKING:
    from tests.conftest import Make

FIELD = "mm_vision_tower"
TEXT = "text_model_llava"


@pytest.fixture(scope="session")
def exported(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA as a conversion writes it, with its manifest; not to be changed."""
    out = tmp_path_factory.mktemp("exported") / "llava"
    mmconvert.convert(llava, out, "llava", fsync=False)
    return out


@pytest.fixture
def moved(exported: Path, tmp_path: Path) -> Path:
    """A copy of it; the one that it was copied from is still there."""
    shutil.copytree(exported, tmp_path / "moved")
    return tmp_path / "moved"


def said(folder: Path) -> Any:
    return json.loads((folder / TEXT / "config.json").read_text()).get(FIELD)


def contents(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


# --- what is done -----------------------------------------------------------------------------------------------------


def test_a_copy_leads_to_its_own_tower_and_is_verified_again(exported: Path, moved: Path) -> None:
    tower = str(moved / "image_model")
    done = relocate(moved)
    assert done == Relocation(
        config=moved / TEXT / "config.json",
        field=FIELD,
        before=str(exported / "image_model"),
        after=tower,
        tower=moved / "image_model",
        written=(moved / TEXT / "config.json", moved / "mmconvert.json"),
    )
    assert done.changed
    assert said(moved) == tower
    assert mmconvert.verify(moved).problems == []


def test_no_other_byte_of_the_config_changes_and_no_other_file(exported: Path, moved: Path) -> None:
    before = contents(moved)
    relocate(moved)
    after = contents(moved)
    assert {name for name in after if after[name] != before.get(name)} == {f"{TEXT}/config.json", "mmconvert.json"}
    old, new = (json.dumps(str(folder / "image_model")).encode() for folder in (exported, moved))
    assert after[f"{TEXT}/config.json"] == before[f"{TEXT}/config.json"].replace(old, new)


def test_it_is_the_same_as_an_export_that_was_written_there(exported: Path, tmp_path: Path) -> None:
    """So what was moved there and back again is what it was, to the last byte."""
    shutil.copytree(exported, tmp_path / "a" / "llava")
    relocate(tmp_path / "a" / "llava")
    shutil.move(tmp_path / "a" / "llava", tmp_path / "llava")
    relocate(tmp_path / "llava", str(exported / "image_model"))
    assert contents(tmp_path / "llava") == contents(exported)


def stamps(folder: Path) -> dict[Path, tuple[int, ...]]:
    """What tells that a file was written to; when it was read, which a stat tells too, is no matter."""
    found = {each: each.stat() for each in folder.rglob("*")}
    return {each: (status.st_ino, status.st_mtime_ns, status.st_ctime_ns) for each, status in found.items()}


def test_what_leads_there_already_is_left_alone(moved: Path) -> None:
    relocate(moved)
    before = stamps(moved)
    done = relocate(moved)
    assert (done.changed, done.written, done.before) == (False, (), done.after)
    assert stamps(moved) == before


def test_a_value_that_is_spelled_otherwise_stays_so(make_llava: Make, tmp_path: Path) -> None:
    folder = make_llava(tmp_path / "llava", mm_vision_tower=str(tmp_path / "llava/image_model"))
    config = folder / TEXT / "config.json"
    config.write_text(config.read_text().replace("/image_model", "\\/image_model"))
    assert relocate(folder).written == ()


@pytest.mark.parametrize("broken", ["weights", "tokenizer"])
def test_only_configs_are_looked_at(moved: Path, broken: str) -> None:
    (moved / TEXT / {"weights": "model.safetensors", "tokenizer": "tokenizer.model"}[broken]).unlink()
    assert relocate(moved).changed
    assert all("is missing" in problem for problem in mmconvert.verify(moved).problems)


# --- what is named ----------------------------------------------------------------------------------------------------


def test_the_text_folder_alone_may_be_named(moved: Path) -> None:
    assert relocate(moved / TEXT).after == str(moved / "image_model")
    assert mmconvert.verify(moved).problems == []


@pytest.mark.parametrize(("start", "named"), [("", "."), ("", TEXT), (TEXT, "."), (TEXT, ".."), ("image_model", "..")])
def test_from_wherever_it_is_called_the_path_is_absolute(
    moved: Path, monkeypatch: pytest.MonkeyPatch, start: str, named: str
) -> None:
    monkeypatch.chdir(moved / start)
    assert relocate(Path(named)).after == str(moved / "image_model")
    assert mmconvert.verify(moved).problems == []


def test_a_path_is_written_as_it_is_called(moved: Path) -> None:
    """A link that always leads to the newest is written itself."""
    (moved.parent / "newest").symlink_to(moved)
    assert relocate(moved.parent / "newest").after == str(moved.parent / "newest" / "image_model")
    assert mmconvert.verify(moved).problems == []


def test_behind_a_link_to_the_text_folder_the_tower_is_found(moved: Path) -> None:
    (moved.parent / "llava").symlink_to(moved / TEXT)
    assert relocate(moved.parent / "llava").after == str(moved / "image_model")
    assert mmconvert.verify(moved).problems == []


def test_a_folder_without_a_manifest_is_relocated_too(make_llava: Make, tmp_path: Path) -> None:
    folder = make_llava(tmp_path / "llava")
    before = contents(folder)
    done = relocate(folder)
    assert (done.before, done.after) == ("../image_model", str(folder / "image_model"))
    assert done.written == (folder / TEXT / "config.json",)
    assert contents(folder).keys() == before.keys()


def test_folders_may_be_called_anything(make_llava: Make, tmp_path: Path) -> None:
    folder = make_llava(tmp_path / "llava", names=("clip", "my-llava"))
    assert relocate(folder).after == str(folder / "clip")


def test_a_field_that_is_absent_is_added(make_llava: Make, tmp_path: Path) -> None:
    folder = make_llava(tmp_path / "llava")
    config = folder / TEXT / "config.json"
    document = json.loads(config.read_text())
    del document[FIELD]
    config.write_text(json.dumps(document, indent=4))
    done = relocate(folder)
    assert done.before is None
    assert config.read_text() == json.dumps({**document, FIELD: done.after}, indent=4)


def test_a_config_that_has_the_field_is_meant_whatever_its_model_type(make_llava: Make, tmp_path: Path) -> None:
    folder = make_llava(tmp_path / "llava", model_type="llama")
    assert relocate(folder).after == str(folder / "image_model")


def test_in_a_hub_cache_the_link_is_replaced_and_the_blob_is_not(make_llava: Make, tmp_path: Path) -> None:
    folder = make_llava(tmp_path / "llava")
    cache = tmp_path / "hub" / "models--me--llava"
    shutil.copytree(folder / TEXT, cache / "blobs")
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for each in (cache / "blobs").iterdir():
        (snapshot / each.name).symlink_to(Path("../../blobs", each.name))
    blobs = contents(cache / "blobs")
    done = relocate(cache, str(folder / "image_model"))
    assert done.config == snapshot / "config.json"
    assert json.loads(done.config.read_text())[FIELD] == str(folder / "image_model")
    assert contents(cache / "blobs") == blobs
    shutil.copytree(folder / "image_model", cache.parent / "image_model")
    assert relocate(cache).after == str(cache.parent / "image_model")


# --- where the tower is -----------------------------------------------------------------------------------------------


def test_a_tower_beside_comes_before_the_one_that_is_named(exported: Path, moved: Path) -> None:
    assert said(moved) == str(exported / "image_model")
    assert relocate(moved / TEXT).after == str(moved / "image_model")


def test_without_one_beside_the_one_that_is_named_stays(exported: Path, moved: Path) -> None:
    shutil.rmtree(moved / "image_model")
    assert not relocate(moved / TEXT).changed
    assert said(moved) == str(exported / "image_model")


def test_a_tower_beside_is_known_by_the_name_it_had(moved: Path) -> None:
    """Beside a text folder that is named alone there may lie anything."""
    shutil.move(moved / "image_model", moved / "clip-large")
    relocate(moved, str(moved / "clip-large"))
    again = moved.rename(moved.with_name("again"))
    shutil.copytree(again / "clip-large", again / "clip-base")
    assert relocate(again / TEXT).after == str(again / "clip-large")
    assert relocate(again).after == str(again / "clip-large")


@pytest.mark.parametrize("around", [".", TEXT])
def test_a_tower_may_be_named_from_its_text_folder_or_from_the_one_around_it(moved: Path, around: str) -> None:
    tower = moved / around / "towers" / "clip"
    tower.parent.mkdir()
    shutil.move(moved / "image_model", tower)
    assert relocate(moved / TEXT, "towers/clip").tower is None
    assert relocate(moved / TEXT).after == str(tower)


def test_a_stranger_s_tower_beside_a_text_folder_is_not_taken(moved: Path) -> None:
    shutil.move(moved / "image_model", moved / "clip-of-somebody")
    relocate(moved / TEXT, "lost")
    with pytest.raises(InputRefused, match=r"its image_model \(mm_vision_tower is 'lost'\) is not found; name its"):
        relocate(moved / TEXT)


@pytest.mark.parametrize("wanted", ["absolute", "relative", None])
def test_several_towers_are_told_by_name_or_not_at_all(moved: Path, wanted: str | None) -> None:
    shutil.move(moved / "image_model", moved / "one")
    shutil.copytree(moved / "one", moved / "two")
    with pytest.raises(InputRefused, match=r"2 folders beside it are of image_model \(one, two\); name one with --tow"):
        relocate(moved, wanted)


@pytest.mark.parametrize(
    ("wanted", "after"),
    [("absolute", "{}/image_model"), ("relative", "../image_model"), ("openai/clip", "openai/clip")],
)
def test_the_tower_is_called_as_wished(moved: Path, wanted: str, after: str) -> None:
    assert relocate(moved, wanted).after == said(moved) == after.format(moved)
    assert mmconvert.verify(moved).problems == []


def test_a_folder_is_written_from_the_root_on(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (moved.parent / "towers").mkdir()
    shutil.move(moved / "image_model", moved.parent / "towers" / "clip")
    monkeypatch.chdir(moved)
    done = relocate(moved, "../towers/clip")
    assert done.after == str(moved.parent / "towers" / "clip")
    # That is known from now on.
    assert relocate(moved / TEXT, "relative").after == "../../towers/clip"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["/nowhere/clip", "./clip", "../clip", "", f"{TEXT}/config.json"])
def test_a_path_that_is_no_folder_is_not_taken_for_a_name(
    moved: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.chdir(moved)
    with pytest.raises(UsageError, match="no such folder"):
        relocate(moved, wanted)


def test_a_folder_that_is_no_tower_is_refused(moved: Path, llama: Path) -> None:
    for folder in (llama, moved):
        with pytest.raises(InputRefused, match=r"names no image_model: its config\.json is missing or ano"):
            relocate(moved, str(folder))
    (moved / "image_model/config.json").write_text('{"model_type": "siglip_vision_model"}')
    relocate(moved / TEXT, "lost")
    with pytest.raises(InputRefused, match="is not found"):
        relocate(moved)


def test_a_path_that_no_config_can_hold_is_refused(moved: Path) -> None:
    odd = moved.rename(moved.with_name("odd\n"))
    with pytest.raises(UsageError, match="a config cannot hold this path"):
        relocate(odd)
    assert relocate(odd, "relative").after == "../image_model"


def test_what_names_no_folder_needs_no_relocating(llama: Path, clip: Path, moved: Path, tmp_path: Path) -> None:
    mmconvert.convert(clip, tmp_path / "cs", "cs", fsync=False)
    for folder, what in (
        (llama, "llama in format hf"),
        (moved / "image_model", "clip-vit in"),
        (tmp_path / "cs", "cs"),
    ):
        with pytest.raises(UsageError, match=f"{what}.*it can be moved as it is"):
            relocate(folder)


def test_nor_does_a_model_that_is_one_folder(llava: Path, tmp_path: Path) -> None:
    mmconvert.convert(llava, tmp_path / "joined", "llava-hf", fsync=False)
    with pytest.raises(UsageError, match="format llava-hf names no folder: it can be moved as it is"):
        relocate(tmp_path / "joined")


def test_where_there_is_no_llava_it_is_said(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        relocate(tmp_path / "absent")
    with pytest.raises(UsageError, match="is a file; name the folder"):
        relocate(clip / "config.json")
    with pytest.raises(InputRefused, match="no checkpoint is recognised here"):
        relocate(tmp_path)
    shutil.copytree(clip, tmp_path / "clip")
    with pytest.raises(InputRefused, match="0 folders for text_model"):
        relocate(tmp_path)


def test_of_several_text_folders_one_must_be_named(moved: Path) -> None:
    shutil.copytree(moved / TEXT, moved / "another")
    with pytest.raises(InputRefused, match=f"holds 2 folders of text_model \\(another, {TEXT}\\); name one"):
        relocate(moved)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"mm_vision_tower": 1, "mm_vision_tower": 2}', b"\xff"])
def test_a_broken_config_is_refused(moved: Path, data: bytes) -> None:
    (moved / TEXT / "config.json").write_bytes(data)
    with pytest.raises(InputRefused, match=r"config\.json"):
        relocate(moved)


@pytest.mark.parametrize("junk", [None, 0, "", "/", "\0", ".", "..", [1], {"a": 1}])
def test_whatever_the_field_said_is_replaced(make_llava: Make, tmp_path: Path, junk: Any) -> None:
    folder = make_llava(tmp_path / "llava", mm_vision_tower=junk)
    assert relocate(folder / TEXT).before == junk
    assert said(folder) == str(folder / "image_model")


@pytest.mark.parametrize("wanted", ["absolute", "new"])
def test_a_config_that_was_damaged_is_not_signed_anew(moved: Path, wanted: str) -> None:
    config = moved / TEXT / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 48', '"hidden_size": 49'))
    before = contents(moved)
    with pytest.raises(VerificationFailed, match=r"config\.json: is not what was written, says the manifest"):
        relocate(moved, wanted)
    assert contents(moved) == before


def test_damage_elsewhere_is_neither_looked_for_nor_hidden(moved: Path) -> None:
    with (moved / "image_model/model.safetensors").open("r+b") as file:
        file.write(b"\xff")
    assert relocate(moved).changed
    assert mmconvert.verify(moved).problems == ["image_model/model.safetensors: header: is not what was written"]


def test_a_folder_that_cannot_be_written_to_is_a_failure_of_the_disk(
    moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, open_file = contents(moved), os.open

    def read_only(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return open_file(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(DiskError, match="Read-only file system"):
        relocate(moved)
    assert contents(moved) == before


def test_a_folder_that_cannot_be_read_is_refused(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(InputRefused, match=f"{moved}: cannot be read: Permission denied"):
        relocate(moved)


def test_a_run_that_was_killed_between_config_and_manifest_is_finished(
    moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = (moved / manifest.NAME).read_bytes()
    relocate(moved)
    (moved / manifest.NAME).rename(moved / f"{manifest.NAME}.amended")
    (moved / manifest.NAME).write_bytes(saved)
    assert mmconvert.verify(moved).problems
    done = relocate(moved)
    assert (done.changed, done.written) == (False, (moved / manifest.NAME,))
    assert mmconvert.verify(moved).problems == []


@pytest.mark.parametrize("name", [f"{TEXT}/config.json.new", "mmconvert.json.amended", "mmconvert.json.amended.new"])
def test_nothing_is_written_through_a_link_that_a_stranger_has_put_there(
    moved: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "precious").write_text("precious")
    (moved / name).symlink_to(tmp_path / "precious")
    assert relocate(moved).changed
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (moved / TEXT / "config.json").is_symlink()
    assert mmconvert.verify(moved).problems == []
