"""The environment of a run: versions, machine, git revision, cache."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "cache_directory",
    "describe_environment",
    "git_state",
    "peak_memory_bytes",
    "with_home",
    "without_home",
    "without_host_name",
]

_PACKAGES = (
    "pennyweight",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
)


def describe_environment() -> dict[str, object]:
    """Return versions, platform and processor as plain values for the run record."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "packages": versions,
    }


def git_state(directory: Path) -> dict[str, object]:
    """Return the revision of the checkout that holds `directory`, and whether it is dirty.

    Both are None outside a checkout.
    """
    revision = _git(directory, "rev-parse", "HEAD")
    if revision is None:
        return {"revision": None, "dirty": None}
    return {"revision": revision, "dirty": bool(_git(directory, "status", "--porcelain"))}


def without_home(text: str) -> str:
    """Return a text in which paths in the user's home directory begin with `~`.

    What is shared then holds no user name.
    """
    home = str(Path.home())
    if home == os.sep:
        return text
    return re.sub(rf"(?:(?<![\w.~/-])|(?<=://)){re.escape(home)}(?![\w.-])", "~", text)


def with_home(value: Any) -> Any:
    """Return JSON's values with every string that begins with `~/` as an absolute path."""
    if isinstance(value, dict):
        return {key: with_home(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_home(each) for each in value]
    if isinstance(value, str) and value.startswith("~/"):
        return str(Path.home() / value[2:])
    return value


@contextmanager
def without_host_name() -> Iterator[None]:
    """Hide the machine's name from libraries that put it in the names of files, as TensorBoard."""
    original = socket.gethostname
    socket.gethostname = lambda: "localhost"
    try:
        yield
    finally:
        socket.gethostname = original


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        process = subprocess.run(  # noqa: S603 - fixed arguments
            # A lock that is left behind when the time is up would be in the user's way.
            ["git", "--no-optional-locks", "-C", str(directory), *arguments],  # noqa: S607 - own git
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cache_directory() -> Path:
    """Return the directory that keeps tables and tokens between runs.

    The variable PENNYWEIGHT_CACHE names it; without it, it is in the user's cache directory.
    """
    override = os.environ.get("PENNYWEIGHT_CACHE")
    if override:
        return Path(override)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pennyweight"
