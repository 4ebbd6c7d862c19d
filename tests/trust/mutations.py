"""Damage, the same for the same seed: to bytes, and to documents.

`mutate_bytes(data, draw, aims)` and `mutate_text(data, draw)` give a mutant of what they are given, `draw` being a
`random.Random`; `hdf5_metadata(path)` and `outside(spans, size)` say where to aim.
"""

from __future__ import annotations

from tests.trust.mutations_bytes import INTEGERS, Span, hdf5_metadata, mutate_bytes, outside
from tests.trust.mutations_text import mutate_text
from tests.trust.mutations_tree import mutate_tree

__all__ = ["INTEGERS", "Span", "hdf5_metadata", "mutate_bytes", "mutate_text", "mutate_tree", "outside"]
