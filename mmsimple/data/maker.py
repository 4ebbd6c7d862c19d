"""Records into samples, in whatever process: tokens, pictures that are looked at, and what is wrong with either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmconvert.errors import InputRefused
from mmsimple.data.conversation import BadRecord, FittedSample, Record, encode, fitted
from mmsimple.data.images import BadImage, locate, open_image
from mmsimple.data.job import Job
from mmsimple.data.templates import Rendered, render
from mmsimple.data.tokenizer import load_tokenizer

# Of a text as long as may be, so many characters for each token are looked at, or as many as the longest token has:
# of 9 MB, a tokenizer makes 3.5 GB in a quarter of a minute, all of it to be found too long.
TOKEN_CHARACTERS = 64


class SampleMaker:
    """Makes samples of records; loads the tokenizer once, and looks at a picture of several records once.

    Of a conversation that cannot fit, what is far behind the last column is not looked at.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tokenizer = load_tokenizer(job.tokenizer)
        columns = job.layout.sequence_length + 1
        # What a sample can have at most, and a little more, so that what is too long is still seen to be.
        self._most_characters = (columns + 1) * max(TOKEN_CHARACTERS, self.tokenizer.longest_token())
        self._most_turns = 2 * (columns + 1)

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
        rendered = self._rendered(record)
        within = _begin(rendered, self._most_characters)
        sample = encode(within, self.tokenizer, self.job.layout.image_tokens)
        if within is not rendered and len(sample.ids) <= self.job.layout.sequence_length + 1:
            # Tokens that stand for more than they say, such as one for all that is unknown.
            raise BadRecord("too long")
        if max(sample.ids) >= self.job.vocab_size:
            raise BadRecord("token outside the vocabulary")
        return fitted(sample, record.images, self.job.layout, self.job.too_long)

    def _rendered(self, record: Record) -> Rendered:
        try:
            # An answer is a token at least.
            return render(self.job.template, self.tokenizer, record.turns[: self._most_turns])
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


def _begin(rendered: Rendered, most: int) -> Rendered:
    """A text, or so many characters from its beginning if it has more."""
    if len(rendered.text) <= most:
        return rendered
    answers = tuple((start, min(end, most)) for start, end in rendered.answers if start < most)
    return replace(rendered, text=rendered.text[:most], answers=answers)
