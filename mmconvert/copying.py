"""One pass over the bytes of a plan: every tensor from its source to its slot, a block at a time, digested on the way.

Memory is one block for each worker, whatever the size of a tensor or a checkpoint. A block that is a hole in the source
is neither read nor written, so it is a hole in the target.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from io import FileIO
from pathlib import Path

from mmconvert import digests
from mmconvert.containers.layout import FileLayout, Frame, Slot
from mmconvert.errors import InputRefused
from mmconvert.holes import is_hole
from mmconvert.plans import OutputFile, Plan, PlannedTensor, Twins
from mmconvert.progress import Progress
from mmconvert.resumption import Journal
from mmconvert.sources import FileSpan, Source, blocks, side_by_side

# Bytes. Measured: smaller blocks cost calls, larger ones have left the processor's cache before they are used again.
BLOCK = 1 << 21
ZEROS = memoryview(bytes(BLOCK))
WORKERS = 2
# One write. Linux gives it pages as large as the write if it can, and large ones cost more to find: measured in a
# virtual machine, writes of 512 KiB took up to twice the time of these.
PIECE = 1 << 16

Task = Callable[[memoryview], None]


@dataclass
class _Output:
    """A weights file being written; whoever finishes the last of its `pending` tensors closes it."""

    planned: OutputFile
    file: FileIO
    pending: int
    writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def layout(self) -> FileLayout:
        return self.planned.layout


@dataclass
class Pass:
    """One pass over the bytes into `folder`, with a `journal` of the files that are complete.

    `results` fills up with the digest of each tensor by (file, key), `frames` with those of the files that are sealed.
    `kept` are the files that are there already.
    """

    folder: Path
    fsync: bool
    digest: str
    watcher: Progress
    journal: Journal | None = None
    kept: frozenset[str] = frozenset()
    results: dict[tuple[str, str], str] = field(default_factory=dict)
    frames: dict[str, Frame] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def take_up(self, plan: Plan) -> Sequence[str]:
        """Keep what a run before has finished, and give the names of its files."""
        assert self.journal is not None
        finished = self.journal.take_up(self.watcher, fsync=self.fsync)
        self.kept = frozenset(finished)
        for name, each in finished.items():
            self.results |= {(name, key): digest for key, digest in each.digests.items()}
            for kind, counts in each.counts.items():
                for key, count in counts.items():
                    plan.tallies[kind].add(key, count)
        return tuple(finished)

    def write(self, plan: Plan) -> None:
        """Write every file of `plan`; the first error ends all workers at their next block."""
        for name, data in plan.documents.items():
            self.write_document(name, data)
        with ExitStack() as files, ThreadPoolExecutor(WORKERS) as pool:
            tasks = self._tasks(plan, files)
            try:
                for worker in as_completed([pool.submit(self._work, tasks) for _ in range(WORKERS)]):
                    worker.result()
            except BaseException:
                self.stop.set()
                raise

    def sealed(self, plan: Plan) -> Plan:
        """The plan as it was carried out: with the frames that files were given when all their tensors were there."""

        def sealed(layout: FileLayout) -> FileLayout:
            return replace(layout, frame=self.frames.get(layout.name, layout.frame))

        return replace(plan, outputs=tuple(replace(each, layout=sealed(each.layout)) for each in plan.outputs))

    def write_document(self, name: str, data: bytes) -> None:
        with self._create(name) as file:
            _write_exactly(file, memoryview(data), 0)
            self._close(file)

    def _tasks(self, plan: Plan, files: ExitStack) -> Iterator[Task]:
        """All that is to be done, in the order of the output; a file is made when its first tensor's turn comes."""
        for twins in plan.twins:
            yield partial(self._compare, twins)
        for planned in (each for each in plan.outputs if each.layout.name not in self.kept):
            file = files.enter_context(self._create(planned.layout.name))
            file.truncate(planned.layout.size)
            _write_frame(file, planned.layout.frame)
            output = _Output(planned, file, len(planned.tensors))
            if not planned.tensors:
                self._finish(output)
            for tensor in planned.tensors:
                yield partial(self._copy, output, tensor)

    def _work(self, tasks: Iterator[Task]) -> None:
        buffer = memoryview(bytearray(BLOCK))
        while not self.stop.is_set():
            with self.lock:
                task = next(tasks, None)
            if task is None:
                return
            task(buffer)

    def _copy(self, output: _Output, tensor: PlannedTensor, buffer: memoryview) -> None:
        slot = output.layout.slots[tensor.key]
        assert slot.nbytes == tensor.nbytes
        running = digests.new(self.digest)
        for start, size in _cut(slot):
            if self.stop.is_set():
                return
            if is_hole(tensor.source, start, size):
                # The file has its length already, so what is never written is zeros, and a hole in its turn.
                running.update(ZEROS[:size])
            else:
                block = buffer[:size]
                tensor.source.read_into(start, [block])
                running.update(block)
                self._write_block(output, slot.offset + start, block, tensor.source, start)
            with self.lock:
                self.watcher.advance(size)
        with self.lock:
            self.results[output.layout.name, tensor.key] = running.hexdigest()
            output.pending -= 1
            last = not output.pending
        if last:
            self._finish(output)

    def _finish(self, output: _Output) -> None:
        """Seal a file whose tensors are all there, where its format asks for that, and close it."""
        if output.layout.seal is not None:
            frame = self.frames[output.layout.name] = output.layout.seal(output.file.fileno())
            _write_frame(output.file, frame)
        self._close(output.file)
        if self.journal is not None:
            name = output.layout.name
            self.journal.add(output.planned, {key: self.results[name, key] for key in output.layout.slots})

    def _write_block(self, output: _Output, position: int, block: memoryview, source: Source, start: int) -> None:
        """Write `block`, which is what `source` holds from `start` on, to `position` of the output."""
        # One write to a file at a time: the kernel allows no more, and spins where this lock sleeps. So one worker
        # reads and digests while the other one writes.
        with output.writing:
            # What comes as it lies in its file need not pass through here again: the digest has been taken.
            fd, size = output.file.fileno(), len(block)
            if not (isinstance(source, FileSpan) and source.copy_to(fd, position, start, size)):
                _write_exactly(output.file, block, position)
        if self.fsync:
            _start_writeback(output.file, position, size)

    def _compare(self, twins: Twins, _: memoryview) -> None:
        """Raise `InputRefused` unless both twins hold the same bytes."""
        kept, twin = twins.kept, twins.twin
        for _start, left, right in side_by_side(kept.source, twin.source, kept.nbytes):
            if self.stop.is_set():
                return
            if bytes(left) != bytes(right):
                raise InputRefused(f"{twin.where}: {twins.complaint}")

    def _create(self, name: str) -> FileIO:
        """A new file of the target, its folders made, its mode as the umask says."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("x+b", buffering=0)

    def _close(self, file: FileIO) -> None:
        if self.fsync:
            os.fsync(file.fileno())
        file.close()


def bytes_needed(plan: Plan) -> int:
    """The room that the target of `plan` takes on the disk: all its bytes but the blocks that stay holes."""
    return plan.bytes_to_write - sum(
        size
        for output in plan.outputs
        for tensor in output.tensors
        for start, size in _cut(output.layout.slots[tensor.key])
        if is_hole(tensor.source, start, size)
    )


def _cut(slot: Slot) -> Iterator[tuple[int, int]]:
    """The (start, size) of the blocks in which the tensor of `slot` is written."""
    # Writes that end where pages of the output end are a tenth cheaper, and no page goes to the disk twice. Slots are
    # aligned to their elements, so no element is cut.
    return blocks(slot.nbytes, BLOCK, first=BLOCK - slot.offset % BLOCK)


def _write_frame(file: FileIO, frame: Frame) -> None:
    for offset, data in frame:
        _write_exactly(file, memoryview(data), offset)


def _write_exactly(file: FileIO, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(file.fileno(), view[:PIECE], offset)
        view, offset = view[written:], offset + written


def _start_writeback(file: FileIO, offset: int, length: int) -> None:
    """Set the disk to work on some bytes now, so that the fsync at the end finds most of its work done.

    Linux starts to write dirty pages when told that they are not needed soon; macOS has no such call, and waits longer.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), offset, length, os.POSIX_FADV_DONTNEED)
