"""What a run tells TensorBoard, where that is installed; it is not needed, so that trouble with it stops no run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmsimple.data.workers import is_of_worker
from mmsimple.threads import silent

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


class TensorBoard:
    """Event files in a model folder; where a run goes on after `step`, what came later is shown no more."""

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]) -> None:
        self._folder, self._step, self._say = folder / FOLDER, step, say
        self._writer: SummaryWriter | None = None
        self._silence = ExitStack()
        self._is_used = find_spec("tensorboard") is not None

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write numbers by their tags, at once, so that a run that is killed has told all."""
        if self._is_used:
            with self._harmless():
                if self._writer is None:
                    self._writer = self._open()
                for tag, value in scalars.items():
                    self._writer.add_scalar(tag, value, step)
                self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            with self._harmless():
                self._writer.close()
        self._silence.close()

    def _open(self) -> SummaryWriter:
        # Not before there is something to tell: a run with nothing left to do leaves no file.
        from torch.utils.tensorboard import SummaryWriter

        # What its thread fails of is raised by the next call, too.
        self._silence.enter_context(silent(lambda thread: type(thread).__module__.startswith("tensorboard.")))
        return SummaryWriter(self._folder, purge_step=self._step + 1)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Say what goes wrong, whatever an installation may raise that is old or broken, and be silent from then on."""
        try:
            yield
        except Exception as error:
            if is_of_worker(error):
                raise
            self._is_used, self._writer = False, None
            words = str(error).strip().partition("\n")[0]
            self._say(f"warning: no event files for TensorBoard: {type(error).__name__}: {words:.200}")
