"""Open files for reading: on this machine or behind a URL of fsspec, compressed or not.

A file whose name ends in `.gz`, `.bz2`, `.xz`, `.zst` or `.lz4` is decompressed while it is read.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from pennyweight.errors import DataError, PennyweightError, first_line
from pennyweight.limits import MOST_EXPANSION, limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsspec import AbstractFileSystem

__all__ = [
    "AnyFile",
    "PeekedFile",
    "RemoteFile",
    "ending_of",
    "file_system",
    "is_url",
    "local_path",
    "open_bytes",
    "size_of",
    "storage_errors",
]

_EXPANDED = "PENNYWEIGHT_MAX_EXPANDED_MIB"
_CHUNK = 2**20
_PEEK = 2**16


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file behind a URL such as `s3://bucket/rows.jsonl`, with the parts of `Path` in use here.

    Attributes:
        url: its protocol is one of fsspec's.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return PurePosixPath(self.url).name

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the file in a binary mode.

        Raises:
            DataError: it cannot be opened.
        """
        with storage_errors(self.url):
            system, path = file_system(self.url)
            if mode == "rb" and self.url.startswith("memory:"):
                # There, all who open a file would share one place in it.
                return io.BytesIO(system.cat_file(path))
            opened: IO[bytes] = system.open(path, mode)
            return opened


@dataclass(frozen=True, slots=True)
class PeekedFile(RemoteFile):
    """A remote file that is only looked at: small blocks of it are fetched, each of them once.

    File systems fetch several MiB wherever a file is opened, and readers open it several times.

    Attributes:
        size: of the file in bytes, as it is stored.
    """

    size: int
    _blocks: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the file for reading."""
        del mode
        return io.BufferedReader(_Peek(self), _PEEK)

    def bytes_at(self, place: int) -> bytes:
        """Return the content from a place to the end of its block.

        Raises:
            DataError: it cannot be read.
        """
        start = place // _PEEK * _PEEK
        if start not in self._blocks and place < self.size:
            with storage_errors(self.url):
                system, path = file_system(self.url)
                end = min(start + _PEEK, self.size)
                content = bytes(system.cat_file(path, start=start, end=end))
                # A server that knows no ranges sends the whole file.
                self._blocks[start] = content if len(content) <= end - start else content[start:end]
        return self._blocks.get(start, b"")[place - start :]


class _Peek(io.RawIOBase):
    """A place in a `PeekedFile`."""

    def __init__(self, file: PeekedFile) -> None:
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return it."""
        self._place = offset + (0, self._place, self._file.size)[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer up to the end of a block, and return the number of bytes."""
        content = self._file.bytes_at(self._place)[: len(buffer)]
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


AnyFile = Path | RemoteFile


def is_url(location: str) -> bool:
    """Return whether a location is a URL such as `s3://bucket/rows.csv`."""
    protocol, separator, _ = location.partition("://")
    return bool(separator) and protocol.replace("+", "").isalnum()


def file_system(location: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL or local path, and the path in it."""
    import fsspec

    system, path = fsspec.url_to_fs(location)
    return system, str(path)


@contextmanager
def storage_errors(location: object, raised: type[PennyweightError] = DataError) -> Iterator[None]:
    """Turn what fsspec and the clients behind it raise into an error of one line.

    Args:
        location: what was read or written.
        raised: the class of the error.
    """
    try:
        yield
    except PennyweightError:
        raise
    except FileNotFoundError:
        raise raised(f"{location}: no such file") from None
    except ImportError as error:
        raise raised(f"{location}: a package is missing: {first_line(error)}") from None
    except OSError as error:
        raise raised(f"{location}: {error.strerror or first_line(error)}") from error
    except Exception as error:
        raise raised(f"{location}: {first_line(error)}") from error


def size_of(file: AnyFile) -> int:
    """Return the size of a file in bytes, as it is stored.

    Raises:
        DataError: a remote file cannot be found.
        OSError: a local one cannot.
    """
    if isinstance(file, Path):
        return file.stat().st_size
    if isinstance(file, PeekedFile):
        return file.size
    with storage_errors(file):
        system, path = file_system(file.url)
        return int(system.size(path) or 0)


def local_path(file: AnyFile) -> Path:
    """Return the path of a file on this machine.

    Raises:
        DataError: it is somewhere else.
    """
    if isinstance(file, Path):
        return file
    raise DataError(f"{file}: a file of this format is read from a local path only; download it")


def ending_of(name: str) -> tuple[str, str]:
    """Return the ending of a file's name in lower case, and that of its compression or ""."""
    path = PurePosixPath(name.lower())
    if path.suffix in _DECOMPRESSORS:
        return PurePosixPath(path.stem).suffix, path.suffix
    return path.suffix, ""


def open_bytes(file: AnyFile, *, start: int = 0) -> IO[bytes]:
    """Open the content of a file for reading, decompressed if its name says that it is compressed.

    Args:
        file: a local or remote file.
        start: the byte of the decompressed content to begin at.

    Raises:
        DataError: a remote file cannot be opened. Reading raises it for a damaged compressed file,
            and for one that holds far more than its size.
        OSError: a local file cannot be opened.
    """
    _, compression = ending_of(file.name)
    stored: IO[bytes] = file.open("rb")
    if not compression:
        if start:
            stored.seek(start)
        return stored
    raw = _Decompressed(file, stored, _DECOMPRESSORS[compression])
    opened = io.BufferedReader(raw, _CHUNK)
    while start > 0 and (skipped := len(opened.read(min(start, _CHUNK)))):
        start -= skipped
    return opened


def _gzip(stored: IO[bytes]) -> Any:
    import gzip

    return gzip.GzipFile(fileobj=stored)


def _bzip2(stored: IO[bytes]) -> Any:
    import bz2

    return bz2.BZ2File(stored)


def _xz(stored: IO[bytes]) -> Any:
    import lzma

    return lzma.LZMAFile(stored)


def _arrow(codec: str) -> Callable[[IO[bytes]], Any]:
    def decompress(stored: IO[bytes]) -> Any:
        import pyarrow as pa

        return pa.CompressedInputStream(stored, codec)

    return decompress


_DECOMPRESSORS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": _gzip,
    ".bz2": _bzip2,
    ".xz": _xz,
    ".zst": _arrow("zstd"),
    ".lz4": _arrow("lz4"),
}


class _Decompressed(io.RawIOBase):
    """The content of a compressed file, refused once it exceeds what the file may unpack to."""

    def __init__(
        self, file: AnyFile, stored: IO[bytes], decompress: Callable[[IO[bytes]], Any]
    ) -> None:
        self._file = file
        self._stored = stored
        self._content = decompress(stored)
        self._left = max(limit(_EXPANDED), MOST_EXPANSION * size_of(file))

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and return the number of bytes."""
        try:
            count = int(self._content.readinto(buffer))
        except Exception as error:
            raise DataError(f"{self._file}: cannot be decompressed: {first_line(error)}") from error
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{self._file}: unpacks to more than {MOST_EXPANSION} times its size; if it is "
                f"right, raise {_EXPANDED}"
            )
        return count

    def close(self) -> None:
        """Close the stored file as well."""
        if not self.closed:
            self._content.close()
            self._stored.close()
        super().close()
