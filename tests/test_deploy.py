"""The files in deploy/ have the structure that Kubernetes, KubeRay and Slurm expect."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from lightkube.models.batch_v1 import Job
from lightkube.models.core_v1 import PodTemplateSpec
from lightkube.models.meta_v1 import ObjectMeta
from typer.main import get_command

from pennyweight.cli.main import app

DEPLOY = Path(__file__).parents[1] / "deploy"


class _HeadGroup(msgspec.Struct):
    rayStartParams: dict[str, str]  # noqa: N815 - KubeRay's names
    template: PodTemplateSpec


class _WorkerGroup(_HeadGroup):
    groupName: str  # noqa: N815
    replicas: int
    minReplicas: int  # noqa: N815
    maxReplicas: int  # noqa: N815


class _RayCluster(msgspec.Struct):
    headGroupSpec: _HeadGroup  # noqa: N815
    workerGroupSpecs: list[_WorkerGroup]  # noqa: N815
    rayVersion: str  # noqa: N815


class _RayJobSpec(msgspec.Struct):
    entrypoint: str
    rayClusterSpec: _RayCluster  # noqa: N815
    shutdownAfterJobFinishes: bool  # noqa: N815
    ttlSecondsAfterFinished: int  # noqa: N815
    backoffLimit: int  # noqa: N815


class _RayJob(msgspec.Struct):
    """The fields of KubeRay's RayJob that the manifest has, as in KubeRay's rayjob_types.go."""

    apiVersion: str  # noqa: N815
    kind: str
    metadata: ObjectMeta
    spec: _RayJobSpec


def _load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def _unknown(given: Any, known: Any, path: str = "") -> list[str]:
    """Return the keys of a manifest that its schema has not."""
    if isinstance(given, dict):
        missing = [f"{path}.{key}" for key in given if key not in known]
        kept = [key for key in given if key in known]
        return missing + [
            p for key in kept for p in _unknown(given[key], known[key], f"{path}.{key}")
        ]
    if isinstance(given, list):
        return [
            p for one, other in zip(given, known, strict=True) for p in _unknown(one, other, path)
        ]
    return []


def _check(manifest: Any, schema: Any) -> list[str]:
    """Return the unknown keys of a manifest; raise for missing keys and values of another type."""
    return _unknown(manifest, msgspec.to_builtins(msgspec.convert(manifest, schema)))


def _options(line: str) -> None:
    """Check that a command line of Pennyweight has options that exist."""
    words = shlex.split(line.replace("\\\n", " "))
    words = words[words.index("pennyweight") + 1 :]
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
    assert used <= known
    assert used


def test_the_job_is_one_of_kubernetes() -> None:
    job = _load("kubernetes-job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert _check(job, Job) == []
    (container,) = job["spec"]["template"]["spec"]["containers"]
    _options(shlex.join(container["command"]))
    assert "--resume" in container["command"]


def test_the_ray_job_is_one_of_kuberay() -> None:
    job = _load("ray-job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert _check(job, _RayJob) == []
    shell, flag, line = shlex.split(job["spec"]["entrypoint"])
    assert (shell, flag) == ("bash", "-c")
    _options(line)
    # The version of the cluster is the one that is installed with Pennyweight.
    constraints = (DEPLOY.parent / "constraints.txt").read_text(encoding="utf-8")
    assert f"\nray=={job['spec']['rayClusterSpec']['rayVersion']}\n" in constraints


@pytest.mark.parametrize("name", ["kubernetes-job.yaml", "ray-job.yaml"])
def test_every_mounted_volume_is_defined(name: str) -> None:
    def pods(value: Any) -> list[Any]:
        if isinstance(value, list):
            return [pod for one in value for pod in pods(one)]
        if not isinstance(value, dict):
            return []
        own = [value] if "containers" in value else []
        return own + [pod for one in value.values() for pod in pods(one)]

    found = pods(_load(name))
    assert found
    for pod in found:
        mounted = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_a_wrong_manifest_is_noticed() -> None:
    job = _load("kubernetes-job.yaml")
    job["spec"]["template"]["spec"]["containers"][0]["imagee"] = "IMAGE"
    assert _check(job, Job) == [".spec.template.spec.containers.imagee"]
    del job["spec"]["template"]["spec"]["containers"][0]["name"]
    with pytest.raises(msgspec.ValidationError, match="name"):
        _check(job, Job)


def test_the_slurm_script_is_valid_and_calls_an_existing_command() -> None:
    script = DEPLOY / "slurm.sh"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text(encoding="utf-8")
    _options(text[text.index("-m pennyweight") :])
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, flags=re.MULTILINE))
    # One task on each node, which starts a process for each of its GPUs.
    assert options["ntasks-per-node"] == "1"
    assert f"--nproc-per-node {options['gpus-per-node']} " in text
    assert "requeue" in options
