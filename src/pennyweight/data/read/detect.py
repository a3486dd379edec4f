"""Detect a file's format by its first bytes, or else by its ending."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pennyweight.data.read.saved import is_saved
from pennyweight.data.read.storage import AnyFile, ending_of, open_bytes
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["format_of"]

_HEAD_BYTES = 4096
# A quoted number followed by two other quoted fields, which is not how a header begins.
_AG_NEWS = re.compile(rb'\s*"[0-9]{1,6}","(?:[^"]|"")*","')
_JSON_ARRAY = re.compile(rb"\s*\[\s*\{")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
# Of zip files, and of the older format of Excel.
_SPREADSHEET_MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def format_of(path: AnyFile, endings: Mapping[str, str]) -> str:
    """Return the name of a file's format.

    Args:
        path: an existing file or directory, or a remote file.
        endings: format by file name ending.

    Raises:
        DataError: the format cannot be detected, or the file is compressed or a JSON array.
    """
    if isinstance(path, Path) and path.is_dir():
        if is_saved(path):
            return "datasets"
        raise DataError(f"{path}: a folder that datasets' save_to_disk did not write; name a file")
    with open_bytes(path) as file:
        head = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
    if ending_of(path.name)[0] in _SPREADSHEETS and head.startswith(_SPREADSHEET_MAGIC):
        raise DataError(
            f'{path}: a spreadsheet; save it in the format "CSV UTF-8", or with pandas: '
            f'pandas.read_excel("{path.name}").to_csv("rows.csv", index=False)'
        )
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(f"{path}: compressed with {name}; decompress it first")
    by_ending = endings.get(ending_of(path.name)[0])
    if by_ending in {None, "jsonl"} and _JSON_ARRAY.match(head):
        raise DataError(
            f"{path}: a JSON array; write JSON Lines instead, an object on each line, as pandas "
            'does with to_json(path, orient="records", lines=True)'
        )
    return _by_content(head, by_ending) or by_ending or _raise_unknown(path, endings)


def _by_content(head: bytes, by_ending: str | None) -> str | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[:1] == b"\x80" and b"\x02" <= head[1:2] <= b"\x05":
        return "pickle"
    if by_ending in {None, "csv", "ag_news_csv"}:
        if _AG_NEWS.match(head):
            return "ag_news_csv"
        if by_ending is not None:
            return "csv"
    if by_ending is None and head.lstrip().startswith(b"{"):
        return "jsonl"
    return None


def _raise_unknown(path: AnyFile, endings: Mapping[str, str]) -> str:
    known = ", ".join(endings)
    raise DataError(
        f"{path}: the format cannot be detected; rename the file to one of the known endings, "
        f"{known}, or name its format"
    )
