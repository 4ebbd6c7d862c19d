"""What CS configs of every family have in common."""

from __future__ import annotations

from mmconvert.releases import Release

# From here on every model section must say which model it is of.
NAMED_SINCE = Release(2, 4)
