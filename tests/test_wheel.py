"""The wheel holds what the package needs, and works in an environment that has nothing else."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # A copy, because setuptools leaves its own files in the source tree.
    tree = tmp_path_factory.mktemp("tree")
    files = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "--", "src", "*.toml",
         "LICENSE", "README.md"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in files:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(tree)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("pennyweight/")}
    source = ROOT / "src"
    files = {
        str(file.relative_to(source))
        for file in (source / "pennyweight").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert packed == files


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet"]
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    for package in ("torch", str(wheel)):
        subprocess.run([*install, *constraint, package], check=True)
    folder = tmp_path / "work"
    folder.mkdir()
    command = [str(python.with_name("pennyweight")), "demo"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "996,868 of 1,000,000 allowed" in done.stdout
    assert (folder / "runs" / "demo" / "adapter" / "adapter_model.safetensors").is_file()
