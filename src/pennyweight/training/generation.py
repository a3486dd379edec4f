"""Labelled rows that a language model writes in the style of the target, after the gates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from pennyweight.data.splits import Splits, fingerprint_of
from pennyweight.engine.device import choose_compute
from pennyweight.environment import cache_directory
from pennyweight.errors import RecipeError
from pennyweight.lab.adaptation import adapted_model
from pennyweight.lab.endpoint import api_key
from pennyweight.lab.gates import Judge, counts_by_class, pass_gates
from pennyweight.lab.generate import load_prompts, write_samples
from pennyweight.lab.instructions import ImitatedTexts, load_instructions, write_instructed
from pennyweight.lab.manifest import DerivedRows, derive_once
from pennyweight.lab.sampling import length_fit
from pennyweight.settings.values import EndpointSource, GenerationSettings, LanguageModelSource
from pennyweight.training.judges import check_judges, judge_of

__all__ = ["check_generation", "generate_rows"]

Log = Callable[[str], None]


def check_generation(settings: GenerationSettings, labels: Sequence[str]) -> None:
    """Refuse openings, instructions, judges or a key that cannot be used, before anything is done.

    Raises:
        DataError: openings or instructions cannot be read, or the API key is missing.
        RecipeError: a judge cannot be used.
        RunError: a judge is unfinished.
    """
    _texts_to_give(settings, labels)
    if isinstance(settings.source, EndpointSource):
        api_key(settings.source.endpoint)
    check_judges(settings, labels)


def generate_rows(
    settings: GenerationSettings,
    rows: datasets.Dataset,
    splits: Splits,
    labels: Sequence[str],
    *,
    log: Log,
) -> DerivedRows:
    """Return the generated texts that pass the gates, from the cache after the first time.

    Args:
        settings: who writes the texts, what is written, and the gates.
        rows: training rows: their lengths are imitated, they train the judge, and no generated
            text may repeat one.
        splits: the target, and the held-out texts that no generated text may copy.
        labels: the classes' names.
        log: gets a line about each step.

    Raises:
        RecipeError: no target is named.
        DataError: the model or the openings cannot be read, or the server cannot be used.
    """
    if splits.target is None:
        raise RecipeError(
            "data.target: missing; [generate] imitates unlabelled text from where the model will "
            "be used, for example --set data.target=unlabelled.csv"
        )
    target = splits.target
    given = _texts_to_give(settings, labels)
    written: dict[str, Any] = {
        **settings.source_key,
        "given": given,
        "seed": settings.source.generation.seed,
        "training_rows": fingerprint_of(rows),
        "target": fingerprint_of(target),
    }
    held_out = list(splits.labelled.values())
    parameters: dict[str, Any] = {
        **written,
        "gates": settings.gates_key,
        "judges": check_judges(settings, labels),
        "held_out": [fingerprint_of(table) for table in held_out],
    }
    # A server sees target texts as examples, and may repeat one under another class.
    shown = [target] if isinstance(settings.source, EndpointSource) else []

    def derive() -> tuple[pa.Table, dict[str, Any]]:
        samples = _sample(settings, given, target["text"][:], rows["text"][:], written, log)
        judge = judge_of(settings, rows, classes=len(labels), log=log)
        protected = chain.from_iterable(table["text"] for table in (*held_out, *shown))
        return _judged(samples, settings, judge, labels, (rows["text"][:], protected), log)

    derived = derive_once(cache_directory() / "generated", parameters, derive)
    log(_summary(derived.manifest))
    return derived


def _texts_to_give(
    settings: GenerationSettings, labels: Sequence[str]
) -> dict[str, list[str]] | dict[str, str]:
    """Return the openings or the instruction of each class."""
    if isinstance(settings.source, LanguageModelSource):
        return load_prompts(settings.source.prompts, labels)
    return load_instructions(settings.source.instructions, labels)


def _sample(
    settings: GenerationSettings,
    given: Mapping[str, Any],
    target: Sequence[str],
    texts: Sequence[str],
    key: Mapping[str, Any],
    log: Log,
) -> pa.Table:
    """Return all texts, before the gates; another set of gates finds the same parts on disk."""
    source, cache = settings.source, cache_directory()
    lengths = np.array([len(text.split()) for text in texts])
    if isinstance(source, EndpointSource):
        parts = cache / "generated" / _digest([key])
        imitated = ImitatedTexts(target, lengths)
        return write_instructed(
            source.endpoint, given, imitated, source.generation, parts=parts, log=log
        )
    compute = choose_compute(precision="auto", attention="auto")
    model, model_key = adapted_model(
        source.model,
        target,
        source.fine_tuning,
        precision="bf16" if compute.precision == "bf16" else "fp32",
        cache=cache / "language-models",
        log=log,
    )
    parts = cache / "generated" / _digest([key, model_key])
    return write_samples(model, given, lengths, source.generation, parts=parts, log=log)


def _digest(facts: Sequence[object]) -> str:
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _judged(
    samples: pa.Table,
    settings: GenerationSettings,
    judge: Judge | None,
    labels: Sequence[str],
    others: tuple[Sequence[str], Iterable[str]],
    log: Log,
) -> tuple[pa.Table, dict[str, Any]]:
    """Return the texts that pass the gates, and what the manifest says about all of them.

    Args:
        samples: all texts.
        settings: the gates.
        judge: the classifier among them.
        labels: the classes' names.
        others: texts that must not be repeated: training texts, and held-out ones.
        log: gets a line about each gate.
    """
    texts, intended = samples.column("text").to_pylist(), samples.column("label").to_numpy()
    parents, protected = others
    accepted, rejected = pass_gates(
        texts, intended, settings.gates, judge=judge, parents=parents, protected=protected
    )
    for gate, count in rejected.items():
        log(f"gate {gate}: rejected {count:,} of {len(texts):,} texts")
    lengths = np.array([len(text.split()) for text in texts])
    return samples.filter(pa.array(accepted)), {
        "labels": list(labels),
        "written": len(texts),
        "written_by_class": counts_by_class(intended, labels),
        "rejected": rejected,
        "accepted": counts_by_class(intended[accepted], labels),
        "length_fit": length_fit(samples.column("words").to_numpy(), lengths),
    }


def _summary(manifest: Mapping[str, Any]) -> str:
    """Return a line on the share of texts that passed the gates, in all and of each class."""
    passed, written = sum(manifest["accepted"].values()), manifest["written"]
    by_class = ", ".join(
        f"{name} {manifest['accepted'][name]:,} of {count:,}"
        for name, count in manifest["written_by_class"].items()
    )
    return (
        f"generated rows: {passed:,} of {written:,} passed the gates ({passed / written:.1%}); "
        f"{by_class}"
    )
