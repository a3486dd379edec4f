"""Labelled rows from a language model that was fine-tuned on the target, after the gates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from pennyweight.data.splits import Splits, fingerprint_of
from pennyweight.environment import cache_directory
from pennyweight.errors import RecipeError
from pennyweight.lab.gates import counts_by_class, pass_gates, tfidf_judge
from pennyweight.lab.generate import adapted_model, load_prompts, write_samples
from pennyweight.lab.manifest import DerivedRows, derive_once
from pennyweight.lab.sampling import length_fit
from pennyweight.settings.values import GenerationSettings

__all__ = ["generate_rows"]

Log = Callable[[str], None]


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
        settings: the model, what it writes, and the gates.
        rows: training rows: their lengths are imitated, they train the judge, and no generated
            text may repeat one.
        splits: the target, and the held-out texts that no generated text may copy.
        labels: the classes' names.
        log: gets a line about each step.

    Raises:
        RecipeError: no target is named.
        DataError: the model or the openings cannot be read.
    """
    if splits.target is None:
        raise RecipeError(
            "data.target: missing; [generate] imitates unlabelled text from where the model will "
            "be used, for example --set data.target=unlabelled.csv"
        )
    target = splits.target
    held_out = list(splits.labelled.values())
    prompts = load_prompts(settings.prompts, labels)
    parameters: dict[str, Any] = {
        **settings.key,
        "prompts": prompts,
        "seed": settings.generation.seed,
        "training_rows": fingerprint_of(rows),
        "target": fingerprint_of(target),
        "held_out": [fingerprint_of(table) for table in held_out],
    }

    def derive() -> tuple[pa.Table, dict[str, Any]]:
        samples = _sample(settings, prompts, target["text"][:], rows["text"][:], parameters, log)
        protected = chain.from_iterable(table["text"] for table in held_out)
        return _judged(samples, settings, labels, rows, protected, log)

    derived = derive_once(cache_directory() / "generated", parameters, derive)
    log(
        f"generated rows: {derived.rows.num_rows:,} of {derived.manifest['written']:,} passed "
        "the gates"
    )
    return derived


def _sample(
    settings: GenerationSettings,
    prompts: dict[str, list[str]],
    target: Sequence[str],
    texts: Sequence[str],
    parameters: dict[str, Any],
    log: Log,
) -> pa.Table:
    """Return all texts, before the gates."""
    model, model_key = adapted_model(
        settings.model,
        target,
        settings.fine_tuning,
        cache=cache_directory() / "language-models",
        log=log,
    )
    key = json.dumps([parameters, model_key], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return write_samples(
        model,
        prompts,
        np.array([len(text.split()) for text in texts]),
        settings.generation,
        parts=cache_directory() / "generated" / digest,
        log=log,
    )


def _judged(
    samples: pa.Table,
    settings: GenerationSettings,
    labels: Sequence[str],
    rows: datasets.Dataset,
    protected: chain[str],
    log: Log,
) -> tuple[pa.Table, dict[str, Any]]:
    """Return the texts that pass the gates, and what the manifest says about all of them."""
    texts, intended = samples.column("text").to_pylist(), samples.column("label").to_numpy()
    training = rows["text"][:]
    judge = tfidf_judge(training, np.asarray(rows["label"][:])) if settings.judge else None
    accepted, rejected = pass_gates(
        texts, intended, settings.gates, judge=judge, parents=training, protected=protected
    )
    for gate, count in rejected.items():
        log(f"gate {gate}: rejected {count:,} of {len(texts):,} texts")
    lengths = np.array([len(text.split()) for text in texts])
    return samples.filter(pa.array(accepted)), {
        "labels": list(labels),
        "written": len(texts),
        "rejected": rejected,
        "accepted": counts_by_class(intended[accepted], labels),
        "length_fit": length_fit(samples.column("words").to_numpy(), lengths),
    }
