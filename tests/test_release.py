"""Locks, licences and the container files agree with the project and with each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pennyweight.cli.main import app
from serve.planted import plant
from serve.processes import serving

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
_EXTRAS = {
    "main": (),
    "serve": ("serve",),
    "all": ("lab", "onnx", "quantization", "report", "search", "serve"),
}


def _name(requirement: str) -> str:
    """Return the normalized name of a package, without extras, version and marker."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _pins(path: Path) -> dict[str, str]:
    """Return the versions in a lock or in constraints.txt by name."""
    text = path.read_text(encoding="utf-8")
    return {_name(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", text)}


CONSTRAINTS = _pins(ROOT / "constraints.txt")


@pytest.mark.parametrize("lock", [*_EXTRAS, "torch", "tools"])
def test_every_package_of_a_lock_has_a_hash_and_the_version_of_the_constraints(lock: str) -> None:
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=[\w.-]+==)", text)[1:]
    assert len(entries) == len(_pins(LOCKS / f"{lock}.txt"))
    for entry in entries:
        assert re.search(r"\n    --hash=sha256:[0-9a-f]{64}", entry), entry
    pins = _pins(LOCKS / f"{lock}.txt")
    differing = {n for n, version in pins.items() if CONSTRAINTS.get(n, version) != version}
    assert not differing, "run make lock"


@pytest.mark.parametrize("lock", _EXTRAS)
def test_a_lock_has_every_direct_dependency_but_pytorch(lock: str) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    direct = {*map(_name, PROJECT["project"]["dependencies"])}
    direct |= {_name(requirement) for extra in _EXTRAS[lock] for requirement in extras[extra]}
    assert direct - set(_pins(LOCKS / f"{lock}.txt")) == {"torch"}, "run make lock"


def test_pytorch_and_the_tools_have_locks_of_their_own() -> None:
    assert _pins(LOCKS / "torch.txt")["torch"] == CONSTRAINTS["torch"]
    tools = {*map(_name, PROJECT["dependency-groups"]["release"])}
    assert tools <= set(_pins(LOCKS / "tools.txt"))
    for lock in _EXTRAS:
        assert not [name for name in _pins(LOCKS / f"{lock}.txt") if name.startswith("nvidia")]


def test_every_direct_dependency_is_in_the_table_of_licences() -> None:
    page = (ROOT / "docs" / "reference" / "licences.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"(?m)^\| ([\w.-]+) \| \S+ \| (.+) \| \w+ \|$", page))
    licences = {_name(name): licence for name, licence in table.items()}
    extras = PROJECT["project"]["optional-dependencies"]
    direct = {*map(_name, PROJECT["project"]["dependencies"])}
    direct |= {_name(requirement) for extra in _EXTRAS["all"] for requirement in extras[extra]}
    assert direct <= set(licences), "run make licences"
    assert not [name for name in direct if licences[name].startswith("not ")]


_STUB = """
class ConnectionError(Exception): pass
class ResolvedDependency:
    def __init__(self, *_): pass
class OsvService:
    def __init__(self, **_): pass
    def query(self, _):
        {answer}
"""


@pytest.mark.parametrize(
    ("answer", "code", "output"),
    [
        ("raise ConnectionError", 0, "no package of constraints.txt was compared with anything"),
        ("import requests; raise requests.ConnectionError", 0, "audit SKIPPED"),
        ("return None, []", 3, "pip-audit --vulnerability-service osv"),
    ],
)
def test_an_audit_without_a_database_says_that_it_was_skipped(
    answer: str, code: int, output: str, tmp_path: Path
) -> None:
    package = tmp_path / "pip_audit"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_service.py").write_text(_STUB.format(answer=answer))
    main = "import sys; print('pip-audit', *sys.argv[1:]); sys.exit(3)"
    (package / "__main__.py").write_text(main)
    done = subprocess.run(
        [sys.executable, ROOT / "release" / "audit.py"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert output in done.stdout


def _instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of a kind in the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"(?m)^{name} (.+)$", text)


def _serve_options(arguments: list[str]) -> dict[str, Any]:
    command: Any = typer.main.get_command(app)
    assert arguments[0] == "serve"
    return dict(command.commands["serve"].make_context("serve", arguments[1:]).params)


def test_the_image_runs_the_server_as_a_user_without_rights() -> None:
    assert _instructions("USER") == ["10001:10001"]
    assert yaml.safe_load(_instructions("ENTRYPOINT")[-1]) == ["pennyweight"]
    options = _serve_options(yaml.safe_load(_instructions("CMD")[-1]))
    assert (options["host"], options["port"]) == ("0.0.0.0", 8000)
    assert _instructions("EXPOSE") == ["8000"]


def test_the_image_copies_only_what_its_builder_is_sent() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = [line[1:] for line in lines if line.startswith("!")]
    copies = [line.split()[:-1] for line in _instructions("COPY") if "--from" not in line]
    copied = [source.replace("${EXTRAS}", "all") for sources in copies for source in sources]
    assert "src" in copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in sent), source
    for pattern in sent:
        assert any(fnmatch(source, pattern) for source in copied), pattern


def test_the_health_check_of_the_image_sees_whether_the_server_answers(tmp_path: Path) -> None:
    check = yaml.safe_load(_instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    runs = tmp_path / "runs"
    plant(runs / "a", tag="a")

    def exit_code(address: str) -> int:
        code = check[2].replace("http://127.0.0.1:8000", address)
        assert code != check[2]
        command = [sys.executable, "-c", code]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode

    with serving(runs, log=tmp_path / "log") as server:
        assert exit_code(server.address) == 0
    assert exit_code(server.address) == 1


def test_prometheus_reaches_the_server_of_the_compose_file() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert job.get("metrics_path", "/metrics") == "/metrics"
    host, _, port = job["static_configs"][0]["targets"][0].partition(":")
    options = _serve_options(compose["services"]["pennyweight"]["command"])
    assert host in compose["services"]
    assert (options["allow_host"], str(options["port"])) == ([host], port)
    assert str(options["token_file"]) == job["authorization"]["credentials_file"]
    (secret,) = compose["secrets"]
    for service in ("pennyweight", "prometheus"):
        assert compose["services"][service]["secrets"] == [secret]
        for volume in compose["services"][service]["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).is_file()
    run = compose["services"]["pennyweight"]["volumes"][0]
    assert run.split(":")[-2:] == [options["runs"][0].partition("=")[2], "ro"]
