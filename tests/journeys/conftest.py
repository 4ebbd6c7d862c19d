"""Both programs, in this process."""

from tests.mmsimple.conftest import mmsimple, one_thread

__all__ = ["mmsimple", "one_thread"]
