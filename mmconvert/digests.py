"""The digests that a conversion can record of what it writes, by the names that `--digest` takes."""

from __future__ import annotations

import hashlib
from typing import Protocol

from mmconvert.errors import UsageError

NAMES = ("xxh3", "sha256", "none")


class Digest(Protocol):
    """A running digest of a stream of bytes."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take `data` in; how a stream is cut into pieces makes no difference."""
        ...

    def hexdigest(self) -> str:
        """The digest of everything so far, in lower-case hexadecimal; empty for `none`."""
        ...


class _NoDigest:
    def update(self, data: bytes | memoryview, /) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


def new(name: str) -> Digest:
    """A fresh digest: `xxh3` (128 bits, as fast as memory), `sha256` (cryptographic, slower) or `none`.

    Raises `UsageError` for any other name.
    """
    if name == "xxh3":
        import xxhash

        return xxhash.xxh3_128()
    if name == "sha256":
        return hashlib.sha256()
    if name == "none":
        return _NoDigest()
    raise UsageError(f"no digest is called {name!r}: choose one of {', '.join(NAMES)}")


def of(name: str, data: bytes) -> str:
    """The digest `name` of `data` as a whole."""
    digest = new(name)
    digest.update(data)
    return digest.hexdigest()
