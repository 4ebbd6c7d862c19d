"""transformers at work without a word, and what it raises as a refusal of one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path

from mmconvert.errors import InputRefused

LONGEST = 200


@contextmanager
def in_its_words(where: Path | str, problem: str = "transformers does not load it") -> Iterator[None]:
    """Keep transformers quiet, and make whatever it raises one line that begins with `where` and the problem."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        words = ": ".join(lines)[:LONGEST] or type(error).__name__
        raise InputRefused(f"{where}: {problem}: {words}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
