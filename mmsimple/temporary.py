"""Files for programs that read nothing but files, in a folder that is gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mmconvert.staging import disk_errors


@contextmanager
def temporary_folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with these files. Raises DiskError where it cannot be made."""
    with ExitStack() as held:
        with disk_errors(Path(os.environ.get("TMPDIR", "/tmp")), sum(map(len, files.values()))):
            folder = Path(held.enter_context(TemporaryDirectory()))
            for name, data in files.items():
                (folder / name).write_bytes(data)
        yield folder
