"""Many finished runs on one frozen base, whose texts go through it together."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.engine.batches.tokenize import TokenOptions, join_rows, tokenize_texts
from pennyweight.engine.calibration import calibration_for
from pennyweight.engine.device import choose_compute
from pennyweight.engine.predictor import require_finite
from pennyweight.engine.shared_encoder import SharedEncoder
from pennyweight.errors import DataError, RunError
from pennyweight.files import hash_file
from pennyweight.inference.load import SavedModel, open_run
from pennyweight.inference.loaded_classifier import LoadedClassifier, describe
from pennyweight.inference.processing import Processing, processing_of
from pennyweight.inference.texts import Text
from pennyweight.model.build import load_tokenizer
from pennyweight.model.shared_adapter import (
    SharedAdapter,
    SharedBase,
    base_identity,
    load_shared_adapter,
    load_shared_base,
)
from pennyweight.quiet import quiet_libraries
from pennyweight.settings.values import Settings

__all__ = ["ClassifierBank"]

_LOG = logging.getLogger(__name__)
# What a tokenizer is loaded from, where they exist.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, slots=True)
class _Member:
    """A classifier whose weights are in memory."""

    info: LoadedClassifier
    processing: Processing
    tokenizer: Any
    adapter: SharedAdapter


@dataclass(frozen=True, slots=True)
class _Base:
    """The base of all classifiers, and the run that decided it."""

    shared: SharedBase
    encoder: SharedEncoder
    run: Path


class ClassifierBank:
    """Classifiers of finished runs over one base, which is in memory once.

    A batch may hold texts for different classifiers, and goes through the base once. Each text is
    cleaned, truncated and corrected as its own run does. The first run that is loaded decides the
    base, its precision and the size of batches.

    While there is one classifier only, its adapter is folded into a copy of the weights that it
    changes, which is as fast as a merged model.

    All methods may be called by several threads. A call of `predict_probabilities` uses the
    classifiers that had its names when it began, whatever is loaded or unloaded meanwhile.

    Args:
        memory_bytes: limit for the memory of all adapters with their heads, without the base; the
            least recently used ones leave it, and are read from their runs' directories when they
            are needed again. None for no limit.

    Raises:
        ValueError: `memory_bytes` is not positive.
    """

    def __init__(self, *, memory_bytes: int | None = None) -> None:
        if memory_bytes is not None and memory_bytes < 1:
            raise ValueError(f"memory_bytes: given {memory_bytes}; allowed: 1 or more, or None")
        self._memory_bytes = memory_bytes
        self._base: _Base | None = None
        # Guards the two tables; the least recently used member comes first.
        self._lock = threading.Lock()
        self._known: dict[str, LoadedClassifier] = {}
        self._members: OrderedDict[str, _Member] = OrderedDict()
        # One run is read at a time; tokenizers cannot be used by two threads at once.
        self._reading = threading.Lock()
        self._tokenizing = threading.Lock()
        self._tokenizers: dict[str, Any] = {}

    @property
    def classifiers(self) -> tuple[LoadedClassifier, ...]:
        """All classifiers by name, those included whose weights have left the memory."""
        with self._lock:
            return tuple(self._known[name] for name in sorted(self._known))

    def load(self, run: str | Path, *, name: str | None = None) -> LoadedClassifier:
        """Load a finished run; one that has the name already is replaced.

        Texts of calls that have begun are still classified by the replaced run.

        Args:
            run: the run's directory.
            name: how to call the classifier; by default, the directory's name.

        Raises:
            RunError: it is no complete run, its base is not that of the bank, its method cannot
                share a base, or it needs more than `memory_bytes`.
            BaseModelError: the base cannot be found.
        """
        path = Path(run)
        with self._reading:
            member = self._read(path, name or path.resolve().name)
            with self._lock:
                self._known[member.info.name] = member.info
                self._keep(member)
        return member.info

    def unload(self, name: str) -> None:
        """Remove a classifier; the base stays.

        Raises:
            RunError: no classifier has this name.
        """
        with self._lock:
            if name not in self._known:
                raise self._unknown([name])
            del self._known[name]
            member = self._members.pop(name, None)
        if member is not None and self._base is not None:
            self._base.encoder.forget(member.adapter)

    def predict_probabilities(
        self, texts: Sequence[Text], names: Sequence[str]
    ) -> list[np.ndarray]:
        """Return the class probabilities of each text, float64 `[classes]` of its classifier.

        Args:
            texts: raw texts, or tuples of two texts for runs on pairs.
            names: the name of each text's classifier.

        Raises:
            DataError: `texts` and `names` differ in length, or an element is not a text, or not a
                pair of texts where the classifier needs one.
            RunError: no classifier has one of the names, or one that had left the memory cannot be
                read again.
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        probabilities, _ = self._predict_each(texts, names)
        return probabilities

    def _predict_each(
        self, texts: Sequence[Text], names: Sequence[str]
    ) -> tuple[list[np.ndarray], dict[str, LoadedClassifier]]:
        """Return the probabilities of each text, and the classifiers that they are from."""
        if isinstance(texts, str) or isinstance(names, str):
            raise DataError('texts and names: give lists, such as ["a text"] and ["a name"]')
        if len(texts) != len(names):
            raise DataError(
                f"texts: {len(texts)} texts and {len(names)} names; give a name for each text"
            )
        results: list[np.ndarray] = [np.empty(0)] * len(texts)
        used: dict[str, LoadedClassifier] = {}
        for members in self._in_turn(list(dict.fromkeys(names))):
            rows = [row for row, name in enumerate(names) if name in members]
            self._predict(texts, names, rows, members, results)
            used |= {name: member.info for name, member in members.items()}
        return results, used

    def predict(self, texts: Sequence[Text], names: Sequence[str]) -> list[str | list[str]]:
        """Return the label of each text, or a list of labels for a multi-label classifier.

        Args:
            texts: as for `predict_probabilities`, which raises the same errors.
            names: the name of each text's classifier.
        """
        probabilities, used = self._predict_each(texts, names)
        return [used[name].labels_of(p) for name, p in zip(names, probabilities, strict=True)]

    def _in_turn(self, names: Sequence[str]) -> Iterator[Mapping[str, _Member]]:
        """Yield the classifiers of some names: those in memory, then others as memory allows."""
        with self._lock:
            if unknown := [name for name in names if name not in self._known]:
                raise self._unknown(unknown)
            waiting = [self._known[name] for name in names if name not in self._members]
            present = {name: self._members[name] for name in names if name in self._members}
            for name in present:
                self._members.move_to_end(name)
        if present:
            yield present
            del present
        while waiting:
            group = [waiting.pop(0)]
            while waiting and sum(one.bytes for one in [*group, waiting[0]]) <= (
                self._memory_bytes or 0
            ):
                group.append(waiting.pop(0))
            yield {info.name: self._read_again(info) for info in group}

    def _read_again(self, info: LoadedClassifier) -> _Member:
        """Return a classifier that has left the memory.

        Raises:
            RunError: its run has changed, or cannot be read.
        """
        with self._reading:
            with self._lock:
                member = self._members.get(info.name)
                if member is not None and member.info is info:
                    return member
            _LOG.info("%s: read again from %s", info.name, info.run)
            member = self._read(info.run, info.name)
            if member.info != info:
                raise RunError(
                    f"{info.run}: this run has changed since it was loaded as {info.name}; load it "
                    "again"
                )
            member = replace(member, info=info)
            with self._lock:
                if self._known.get(info.name) is info:
                    self._keep(member)
            return member

    def _is_alone(self, members: Mapping[str, _Member]) -> bool:
        """Return whether the bank has a single classifier, and a batch is for it."""
        with self._lock:
            return len(members) == 1 and members.keys() == self._known.keys()

    def _keep(self, member: _Member) -> None:
        """Keep a classifier in memory, and let the least recently used ones leave it."""
        self._members[member.info.name] = member
        self._members.move_to_end(member.info.name)
        if self._memory_bytes is None:
            return
        while sum(one.info.bytes for one in self._members.values()) > self._memory_bytes:
            name, _ = self._members.popitem(last=False)
            _LOG.info(
                "%s: leaves the memory of %d bytes; it is read again when it is needed",
                name,
                self._memory_bytes,
            )

    def _unknown(self, names: Sequence[str]) -> RunError:
        loaded = ", ".join(sorted(self._known)) or "none"
        return RunError(f"{', '.join(names)}: not in the bank; loaded are: {loaded}")

    @quiet_libraries()
    def _read(self, run: Path, name: str) -> _Member:
        record, settings, saved = open_run(run)
        base = self._base_for(run, saved, settings)
        adapter = load_shared_adapter(
            base.shared, saved.base, saved.artifact, method=saved.method, options=saved.options
        )
        if self._memory_bytes is not None and adapter.bytes > self._memory_bytes:
            raise RunError(
                f"{run}: its adapter needs {adapter.bytes:,} bytes, and memory_bytes is "
                f"{self._memory_bytes:,}; raise it"
            )
        self._base = base
        processing = processing_of(record, settings, saved.artifact)
        info = describe(name, run, record, processing, size=adapter.bytes)
        return _Member(info, processing, self._tokenizer(saved), adapter)

    def _base_for(self, run: Path, saved: SavedModel, settings: Settings) -> _Base:
        """Return the base of the bank, or that of the first run.

        Raises:
            RunError: the run has another base.
        """
        identity = base_identity(saved.base, saved.options)
        if self._base is None:
            compute = choose_compute(
                precision=settings.compute.precision,
                attention=settings.compute.attention,
                products=settings.compute.products,
                config=saved.base.config,
            )
            options = replace(saved.options, attention=compute.attention)
            shared = load_shared_base(saved.base, options)
            encoder = SharedEncoder(
                shared.model,
                compute,
                batch_rows=saved.inference.batch_rows,
                max_tokens=saved.inference.batch_tokens,
                calibration=calibration_for(compute, self._tokenizer(saved)),
            )
            return _Base(shared, encoder, run)
        if self._base.shared.identity != identity:
            raise RunError(
                f"{run}: its base is {identity}, and that of the bank is "
                f"{self._base.shared.identity} (from {self._base.run}); load it into another bank"
            )
        return self._base

    def _tokenizer(self, saved: SavedModel) -> Any:
        """Return a run's tokenizer, which runs with the same files share."""
        files = [saved.artifact / name for name in _TOKENIZER_FILES]
        key = "|".join(hash_file(file) for file in files if file.is_file())
        if key not in self._tokenizers:
            location = str(saved.artifact)
            self._tokenizers[key] = load_tokenizer(saved.base, tokenizer=location)
        return self._tokenizers[key]

    def _predict(
        self,
        texts: Sequence[Text],
        names: Sequence[str],
        rows: Sequence[int],
        members: Mapping[str, _Member],
        results: list[np.ndarray],
    ) -> None:
        """Write the probabilities of some rows, whose classifiers are given, into `results`."""
        if self._base is None or not rows:
            return
        cleaned: dict[int, Any] = {}
        groups: dict[tuple[Any, ...], list[int]] = {}
        for row in rows:
            member = members[names[row]]
            (cleaned[row],) = member.processing.cleaned([texts[row]], first=row)
            groups.setdefault(_tokenization(member), []).append(row)
        with self._tokenizing:
            tokens = join_rows(
                [
                    tokenize_texts(
                        [cleaned[row] for row in group],
                        tokenizer=members[names[group[0]]].tokenizer,
                        max_tokens=members[names[group[0]]].processing.max_tokens,
                        options=TokenOptions(members[names[group[0]]].processing.truncation),
                    )
                    for group in groups.values()
                ]
            )
        order = [row for group in groups.values() for row in group]
        numbers = {name: number for number, name in enumerate(members)}
        owners = np.array([numbers[names[row]] for row in order])
        predictions = self._base.encoder.predict(
            tokens,
            owners,
            [member.adapter for member in members.values()],
            features=any(member.processing.needs_features for member in members.values()),
            folded=self._is_alone(members),
        )
        for name, prediction in zip(members, predictions, strict=True):
            own = [row for row in order if names[row] == name]
            require_finite(prediction, name=name)
            probabilities = members[name].processing.probabilities(
                prediction, [cleaned[row] for row in own]
            )
            for row, vector in zip(own, probabilities, strict=True):
                results[row] = vector.copy()


def _tokenization(member: _Member) -> tuple[Any, ...]:
    """Return what has to agree for texts to be tokenized together."""
    processing = member.processing
    is_pair = processing.pair_columns is not None
    return id(member.tokenizer), processing.max_tokens, processing.truncation, is_pair
