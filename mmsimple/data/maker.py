"""Records into samples, in whatever process: tokens, pictures that are looked at, and what is wrong with either."""

from __future__ import annotations

from collections.abc import Sequence

from mmconvert.errors import InputRefused
from mmsimple.data.conversation import BadRecord, FittedSample, Record, encode, fitted
from mmsimple.data.images import BadImage, locate, open_image
from mmsimple.data.job import Job
from mmsimple.data.templates import Rendered, render
from mmsimple.data.tokenizer import load_tokenizer


class SampleMaker:
    """Makes samples of records; loads the tokenizer once, and looks at a picture of several records once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tokenizer = load_tokenizer(job.tokenizer)

    def __call__(self, records: Sequence[Record | str]) -> list[FittedSample | str]:
        """For each record a sample, or what is wrong with it; of one that was bad already, that."""
        pictures: dict[str, str | None] = {}
        return [record if isinstance(record, str) else self._outcome(record, pictures) for record in records]

    def _outcome(self, record: Record, pictures: dict[str, str | None]) -> FittedSample | str:
        try:
            sample = self._sample(record)
            for name in sample.paths:
                if name not in pictures:
                    pictures[name] = self._what_is_wrong(name)
                if (reason := pictures[name]) is not None:
                    return reason
        except BadRecord as error:
            return error.reason
        return sample

    def _sample(self, record: Record) -> FittedSample:
        sample = encode(self._rendered(record), self.tokenizer, self.job.layout.image_tokens)
        if max(sample.ids) >= self.job.vocab_size:
            raise BadRecord("token outside the vocabulary")
        return fitted(sample, record.images, self.job.layout, self.job.too_long)

    def _rendered(self, record: Record) -> Rendered:
        try:
            return render(self.job.template, self.tokenizer, record.turns)
        except InputRefused as error:
            raise BadRecord("the chat template refuses it") from error

    def _what_is_wrong(self, name: str) -> str | None:
        try:
            picture = open_image(locate(self.job.images, name))
            if self.job.transforms is not None:
                self.job.transforms.check(picture)
        except BadImage as error:
            return error.reason
        return None
