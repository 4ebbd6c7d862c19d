"""How much of the tests in this folder is done: enough to notice a fault in every run of the tests, more by
`make trust`.
"""

from __future__ import annotations

import os

# What `make trust` sets.
VARIABLE = "MMCONVERT_TRUST"


def amount(usual: int, thorough: int) -> int:
    """How often to try something."""
    return thorough if os.environ.get(VARIABLE) == "thorough" else usual
