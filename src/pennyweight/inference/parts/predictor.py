"""Predict parts of files with a model that is loaded once; one worker of a prediction."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from pennyweight.data.bad_rows import BadRowLog
from pennyweight.data.label import BadRow
from pennyweight.data.read import Record
from pennyweight.errors import DataError
from pennyweight.files import hash_file
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.output import writing
from pennyweight.inference.parts.folder import OutputFolder
from pennyweight.inference.parts.manifest import DonePart
from pennyweight.inference.parts.plan import OpenRows, Part, PredictJob, bad_rows_of, open_rows
from pennyweight.inference.predict import predict_records

__all__ = ["PartPredictor"]


@dataclass(slots=True)
class _Cursor:
    """A file that stays open for its next part: how far it has been read, and what follows."""

    location: str
    row: int
    rows: OpenRows
    records: Iterator[Record]


class PartPredictor:
    """Predicts parts, each into a file of its own.

    Args:
        job: of which the parts are.

    Raises:
        RunError: the run is not complete, or its files were changed after training.
        BaseModelError: the base cannot be found.
    """

    def __init__(self, job: PredictJob) -> None:
        self._job = job
        self._folder = OutputFolder.at(job.out)
        self._classifier = Classifier.load(job.run, backend=job.backend)
        self._cursor: _Cursor | None = None

    def __call__(self, part: Part) -> DonePart:
        """Predict a part, and return what was written.

        The same part always gives the same bytes, whatever was predicted before.

        Raises:
            DataError: the rows cannot be read, have changed, or one is bad and that stops.
            RunError: the output cannot be written.
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        cursor, self._cursor = self._open(part), None
        rows, bad_rows = cursor.rows, io.StringIO()
        log = BadRowLog(bad_rows, part.file.location)

        def set_aside(record: Record, problem: BadRow) -> None:
            if self._job.options.on_bad_row == "stop":
                following, parser = cursor.records, rows.parser
                raise log.error(record, problem, following=following, parser=parser) from None
            log.add(record, problem)

        with self._folder.replacing(part.path) as path:
            with writing(path, rows.layout, self._job.output_format) as writer:
                counts = predict_records(
                    self._classifier,
                    _exactly(cursor.records, part),
                    rows.parser,
                    rows.layout,
                    writer=writer,
                    on_bad_row=set_aside,
                )
            size, digest = path.stat().st_size, hash_file(path)
        if log.rows:
            with self._folder.replacing(bad_rows_of(part.path)) as path:
                path.write_text(bad_rows.getvalue(), encoding="utf-8")
        else:
            self._folder.remove(bad_rows_of(part.path))
        cursor.row = part.end.row
        self._cursor = cursor
        return DonePart(
            file=part.file.name,
            number=part.number,
            first_row=part.start.row + 1,
            rows=counts.rows,
            bad=log.rows,
            abstained=counts.abstained,
            path=part.path,
            bytes=size,
            sha256=digest,
            end=(part.end.row, part.end.byte, part.end.line),
        )

    def _open(self, part: Part) -> _Cursor:
        """Return the file of a part, at its first row."""
        cursor, location = self._cursor, part.file.location
        if cursor is not None and (cursor.location, cursor.row) == (location, part.start.row):
            return cursor
        rows = open_rows(self._job, part.file)
        assert rows.file.records_from is not None  # noqa: S101 - `open_rows` has checked it
        records = rows.file.records_from(rows.columns, part.start)
        return _Cursor(location, part.start.row, rows, records)


def _exactly(records: Iterable[Record], part: Part) -> Iterator[Record]:
    """Yield the records of a part.

    Raises:
        DataError: there are fewer, or they have other numbers.
    """
    number = part.start.row
    for record in islice(records, part.rows):
        if record.number != number + 1:
            break
        number += 1
        yield record
    if number != part.end.row:
        raise DataError(
            f"{part.file.location}: row {number + 1} is missing: the file has changed while it was "
            "read; restore it, and run the command again"
        )
