"""Remove from a run's record and files what concerns the machine and not the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from pennyweight.runs.record import RunRecord

__all__ = ["anonymous_config", "anonymous_record"]

# Paths in the middle of a text; not the slashes of words, web addresses and tags.
_PATH = re.compile(r"(?<![\w.:/~<>-])(?:~|\.{1,2})?(?:/[^\s/\"'`,;:()\[\]<>]+)+/?")
_STARTS = ("/", "~/", "./", "../")
# Names of classes and columns, and separators, which may look like anything.
_KEPT = (
    *("labels", "label", "predicted", "label_separator"),
    *("text_columns", "pair_columns", "label_column", "label_columns"),
)
# Keys of transformers' configs that say where a file was read from.
_PLACES = ("_name_or_path", "name_or_path", "tokenizer_file", "vocab_file", "merges_file")


def anonymous_record(record: RunRecord) -> RunRecord:
    """Return a run's record without folders, rows and facts about the process.

    Of every path, its last part stays. Texts of rows, among mistakes and examples, are left out.
    """
    values: dict[str, Any] = record.model_dump(mode="json")
    values["mistakes"] = {}
    values["process_id"] = None
    for group in (values["correction"] or {}).get("groups", ()):
        group["examples"] = ()
    known = sorted(set(_paths(values)), key=len, reverse=True)

    def shorten(text: str) -> str:
        if text.startswith(_STARTS) and "\n" not in text:
            return PurePosixPath(text).name
        for path in known:
            text = text.replace(path, PurePosixPath(path).name)
        return _PATH.sub(lambda match: PurePosixPath(match[0]).name, text)

    return RunRecord.model_validate(_changed(values, shorten))


def anonymous_config(values: Any) -> Any:
    """Return a JSON value of transformers or PEFT without the places of files."""
    if isinstance(values, dict):
        return {key: anonymous_config(value) for key, value in values.items() if key not in _PLACES}
    if isinstance(values, list):
        return [anonymous_config(value) for value in values]
    return values


def _paths(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value that is a path."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key not in _KEPT:
                yield from _paths(entry)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for entry in value:
            yield from _paths(entry)
    elif isinstance(value, str) and value.startswith(_STARTS) and "\n" not in value:
        yield value


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {
            key: entry if key in _KEPT else _changed(entry, change) for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [_changed(entry, change) for entry in value]
    return change(value) if isinstance(value, str) else value
