"""A package from elsewhere, as docs/adding-a-family.md builds it; tests/test_docs.py installs it and runs its tests."""

from __future__ import annotations

collect_ignore = ["test_gptj.py"]
