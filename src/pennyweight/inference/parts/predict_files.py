"""Predict any number of rows in any number of files, in parts that are done once each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from pennyweight.cluster import require_ray
from pennyweight.data.ingest import OnBadRow
from pennyweight.data.read import FIRST_ROW, open_file
from pennyweight.data.source import Source
from pennyweight.errors import RunError
from pennyweight.inference.classifier import BackendName
from pennyweight.inference.layout import OutputFormat, OutputOptions, answers_to_write, layout_of
from pennyweight.inference.load import open_run
from pennyweight.inference.output import FORMATS
from pennyweight.inference.parts.engines import ENGINES
from pennyweight.inference.parts.files import InputFile, common_format, find_files
from pennyweight.inference.parts.folder import OutputFolder
from pennyweight.inference.parts.manifest import (
    DonePart,
    Manifest,
    ManifestWriter,
    load_manifest,
    require_same,
)
from pennyweight.inference.parts.plan import (
    Part,
    PredictJob,
    bad_rows_of,
    input_of,
    open_rows,
    parts_of,
)
from pennyweight.inference.processing import processing_of
from pennyweight.runs.directory import hash_artifact

__all__ = ["PartOptions", "PredictedFiles", "predict_files"]

Log = Callable[[str], None]
_SECONDS_BETWEEN_LINES = 5.0
_MANY_FILES = 100


@dataclass(frozen=True, slots=True)
class PartOptions:
    """How a prediction of many rows is computed.

    Attributes:
        rows_per_part: the number of rows after which a file is cut. What has been computed of a
            part is lost when the process ends.
        engine: a name in `engines.ENGINES`.
        workers: number of workers of the engine; None to decide by the machines.
        on_bad_row: "stop", or "set-aside" to write bad rows to `OUT/_bad_rows`.
        backend: what runs the model; see `Classifier.load`.
    """

    rows_per_part: int = 50_000
    engine: str = "local"
    workers: int | None = None
    on_bad_row: OnBadRow = "stop"
    backend: BackendName = "torch"


@dataclass(frozen=True, slots=True)
class PredictedFiles:
    """Numbers of rows that were predicted and set aside.

    Attributes:
        files: number of input files.
        parts: number of output files.
        predicted: number of rows in them.
        predicted_before: number of them that an earlier call has predicted.
        bad: number of rows that were set aside.
        abstained: number of rows without a label, because its probability is too low.
        abstain_below: the confidence below which no label is given; None if one is given always.
        renamed: name in the output of each input column that has the name of an output column.
    """

    files: int
    parts: int
    predicted: int
    predicted_before: int
    bad: int
    abstained: int
    abstain_below: float | None
    renamed: dict[str, str]


def predict_files(
    run: str | Path,
    data: str | Source,
    *,
    out: str,
    output: OutputOptions | None = None,
    options: PartOptions | None = None,
    log: Log = lambda _: None,
) -> PredictedFiles:
    """Predict the rows of many files, or of a large one, in parts; memory does not grow.

    Each part, of `options.rows_per_part` rows of one file, becomes one file below `out`, in the
    same order and with the columns that `predict` writes. `out/_manifest.json` lists the parts.
    Before the first, the columns of all files are checked. If the process ends early, however it
    ends, the same call does the rest, and the files are those of an unbroken call.

    Args:
        run: the run's directory.
        data: a folder, a pattern, a file, or a URL of fsspec for one of them; or a `Source` that
            has one of them as its location.
        out: the folder, or its URL.
        output: what is written for each row. A format that is not given is that of the input for
            JSON Lines and Parquet, and otherwise CSV.
        options: how it is computed.
        log: gets a line of progress now and then.

    Raises:
        RunError: it is no complete run, or `out` holds something else than this prediction.
        DataError: there are no files, or of different formats, or one cannot be read.
        NonFiniteLogitsError: a logit is NaN or infinite.
    """
    output, options = output or OutputOptions(), options or PartOptions()
    _check_options(options)
    source = Source(data) if isinstance(data, str) else data
    folder = OutputFolder.at(out)
    files = find_files(source.location, leave_out=folder.location)
    job, manifest = _settle(Path(run), source, files, out, output, options)
    with folder.locked():
        if (before := load_manifest(folder)) is not None:
            manifest = _continued(before, manifest, folder, out=out)
        is_done = before is not None and _is_done(before, manifest, log)
        if not is_done:
            _check_columns(job, manifest, log)
        writer = ManifestWriter(folder, manifest)
        progress = _Progress(log, len(manifest.parts))

        def done(part: DonePart) -> None:
            writer.add(part)
            progress.add(part)

        try:
            if not is_done:
                ENGINES[options.engine](
                    job, _parts_to_do(job, writer), done=done, workers=options.workers, log=log
                )
        except BaseException:
            writer.save()
            raise
        _remove_strays(before, writer, folder)
        return _counted(job, writer.save(is_complete=True), before=manifest)


def _check_columns(job: PredictJob, manifest: Manifest, log: Log) -> None:
    """Check the columns of every file of which nothing is done, before any is predicted.

    Raises:
        DataError: a file cannot be read, or lacks a column.
    """
    begun = {part.file for part in manifest.parts}
    files = [file for file in manifest.files if file.name not in begun]
    if len(files) >= _MANY_FILES:
        log(f"checking the columns of {len(files):,} files")
    for file in files:
        open_rows(job, file, peeks=True)


def _counted(job: PredictJob, manifest: Manifest, *, before: Manifest) -> PredictedFiles:
    parts = manifest.parts
    return PredictedFiles(
        files=len(manifest.files),
        parts=len(parts),
        predicted=sum(part.rows for part in parts),
        predicted_before=sum(part.rows for part in before.parts),
        bad=sum(part.bad for part in parts),
        abstained=sum(part.abstained for part in parts),
        abstain_below=job.answers.abstain_below,
        renamed={name: shown for name, shown in job.copied.items() if name != shown},
    )


def _check_options(options: PartOptions) -> None:
    """Refuse options that cannot be.

    Raises:
        RunError: the engine is unknown, its library is missing or it cannot have so many workers,
            or a part has no rows.
    """
    if options.engine not in ENGINES:
        raise RunError(f"--engine {options.engine}: unknown; choose from {', '.join(ENGINES)}")
    if options.engine == "ray":
        require_ray()
    if options.workers is not None and options.workers < 1:
        raise RunError(f"--workers {options.workers}: give a whole number from 1")
    if options.engine == "local" and options.workers not in (None, 1):
        raise RunError(
            f"--workers {options.workers}: the engine local has one worker; use --engine ray"
        )
    if options.rows_per_part < 1:
        raise RunError(f"--rows-per-part {options.rows_per_part}: give a whole number from 1")


def _settle(
    run: Path,
    source: Source,
    files: tuple[InputFile, ...],
    out: str,
    output: OutputOptions,
    options: PartOptions,
) -> tuple[PredictJob, Manifest]:
    """Return the job and the manifest of its beginning; nothing is written.

    Raises:
        RunError: it is no complete run, or does not allow what is asked for.
        DataError: the formats differ, or the first file cannot be read.
    """
    record, settings, saved = open_run(run)
    source = replace(source, format=source.format or common_format(files, location=source.location))
    thresholds = processing_of(record, settings, saved.artifact).thresholds
    answers = answers_to_write(settings, record, thresholds, output)
    output_format = output.output_format or _format_like(source.format)
    first = open_file(files[0].peeked, format=source.format)
    layout = layout_of(
        answers,
        first,
        output.columns,
        is_nested=FORMATS[output_format].is_nested,
        name=files[0].location,
    )
    job = PredictJob(
        run=str(run.absolute()),
        out=OutputFolder.at(out).location,
        source=source,
        options=replace(
            settings.data.read,
            on_bad_row=options.on_bad_row,
            pairs=record.pair_columns is not None,
        ),
        answers=answers,
        copied=layout.copied,
        copies_all=output.columns is None,
        output_format=output_format,
        rows_per_part=options.rows_per_part,
        backend=options.backend,
    )
    identity = [
        (record.artifact or hash_artifact(saved.artifact)).files,
        record.recipe.model_dump(mode="json"),
        saved.base.revision,
    ]
    manifest = Manifest(
        pennyweight=version("pennyweight"),
        run=str(run),
        fingerprint=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        settings=_settings_of(job),
        files=files,
    )
    return job, manifest


def _format_like(input_format: str | None) -> OutputFormat:
    return next((name for name in FORMATS if name == input_format), "csv")


def _settings_of(job: PredictJob) -> dict[str, object]:
    """Return what the output depends on beside the run and the files, as JSON has it.

    Whether to stop at a bad row is not among them: it does not change what is written.
    """
    return {
        "format": job.source.format,
        "text_columns": list(job.source.text_columns) if job.source.text_columns else None,
        "columns": list(job.copied),
        "output_format": job.output_format,
        "top_k": job.answers.top_k,
        "abstain_below": job.answers.abstain_below,
        "rows_per_part": job.rows_per_part,
        "backend": job.backend,
    }


def _continued(before: Manifest, now: Manifest, folder: OutputFolder, *, out: str) -> Manifest:
    """Return a manifest with the parts that an earlier one lists and whose files are there.

    Raises:
        RunError: the earlier prediction is another one.
    """
    sizes = folder.sizes()
    whole = tuple(part for part in before.parts if sizes.get(part.path) == part.bytes)
    require_same(before.model_copy(update={"parts": whole}), now, out=out)
    return now.model_copy(update={"parts": whole})


def _is_done(before: Manifest, now: Manifest, log: Log) -> bool:
    """Return whether an earlier prediction has done all; log what it has done."""
    missing = len(before.parts) - len(now.parts)
    if missing:
        log(f"parts that are missing or have another size: {missing:,}; they are predicted again")
    is_done = (
        before.status == "complete"
        and not missing
        and {file.name for file in now.files} == {part.file for part in now.parts}
    )
    if now.parts:
        rows = sum(part.rows for part in now.parts)
        rest = "nothing is left to do" if is_done else "the rest follows"
        log(f"parts done already: {len(now.parts):,} (rows: {rows:,}); {rest}")
    return is_done


def _remove_strays(before: Manifest | None, writer: ManifestWriter, folder: OutputFolder) -> None:
    """Remove parts, and bad rows of parts, that are not those of the prediction.

    A process that was killed leaves some if a file is changed or removed before the next one.
    """
    inputs = {
        file.name: file.location for file in (*(before.files if before else ()), *writer.files)
    }
    kept = set(inputs.values())
    for part in writer.parts.values():
        kept.add(folder.shown(part.path))
        if part.bad:
            kept.add(folder.shown(bad_rows_of(part.path)))
    for path in folder.sizes():
        if input_of(path) in inputs and folder.shown(path) not in kept:
            folder.remove(path)


def _parts_to_do(job: PredictJob, writer: ManifestWriter) -> Iterator[Part]:
    """Yield the parts that are not done yet, file by file."""
    done = dict(writer.parts)
    for file in writer.files:
        start, number = FIRST_ROW, 0
        is_finished = False
        while part := done.get((file.name, number)):
            is_finished = part.after.row - start.row < job.rows_per_part
            start, number = part.after, number + 1
        if is_finished:
            continue
        for following in parts_of(job, file, start=start, number=number):
            if (file.name, following.number) not in done:
                yield following


class _Progress:
    """Logs a line every few seconds; the rate is counted from the end of the first part."""

    def __init__(self, log: Log, parts: int) -> None:
        self._log = log
        self._parts = parts
        self._rows = 0
        self._began: float | None = None
        self._last = 0.0

    def add(self, part: DonePart) -> None:
        """Count a part that is done."""
        self._parts += 1
        now = time.monotonic()
        if self._began is None:
            # The time before has gone into loading the model too.
            self._began = self._last = now
            return
        self._rows += part.rows
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            rate = self._rows / (now - self._began)
            self._log(f"parts done: {self._parts:,}, {rate:,.0f} rows/s, last {part.path}")
