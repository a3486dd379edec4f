"""From a recipe's `[generate]` to labelled rows: the model adapted, texts written, gates passed."""

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
from pennyweight.environment import cache_directory
from pennyweight.errors import RecipeError
from pennyweight.lab.gates import counts_by_class, pass_gates, tfidf_judge
from pennyweight.lab.generate import Generation, adapted_model, load_prompts, write_samples
from pennyweight.lab.manifest import Made, make_once
from pennyweight.lab.sampling import Sampling, length_fit
from pennyweight.recipe import Recipe
from pennyweight.recipe.lab import Generate

__all__ = ["generate_rows"]


def generate_rows(
    recipe: Recipe, rows: datasets.Dataset, splits: Splits, *, say: Callable[[str], None]
) -> Made:
    """The texts that pass the gates, made once for these parameters and read from then on.

    Args:
        recipe: with `[generate]` and a target.
        rows: training rows: their lengths are copied, their words judge, none is repeated.
        splits: the target, and the held-out texts that none may copy.
        say: gets what is being done.

    Raises:
        DataError: the model or the openings cannot be read.
    """
    how = recipe.generate
    if how is None or splits.target is None:
        raise RecipeError("generate: the recipe has no [generate] section with a data.target")
    labels = recipe.data.labels
    prompts = load_prompts(how.prompts, labels)
    held_out = list(splits.labelled.values())
    parameters: dict[str, Any] = {
        **how.model_dump(),
        "prompts": prompts,
        "seed": recipe.seed,
        "training_rows": fingerprint_of(rows),
        "target": fingerprint_of(splits.target),
        "held_out": [fingerprint_of(table) for table in held_out],
    }
    target, texts = splits.target["text"][:], rows["text"][:]
    labelled = (texts, np.asarray(rows["label"][:]))

    def make() -> tuple[pa.Table, dict[str, Any]]:
        samples = _write(recipe, how, prompts, target, texts, parameters, say)
        protected = chain.from_iterable(table["text"] for table in held_out)
        return _judge(samples, how, labels, labelled, protected, say)

    made = make_once(cache_directory() / "generated", parameters, make)
    say(f"generated rows: {made.rows.num_rows:,} of {made.manifest['written']:,} passed the gates")
    return made


def _write(
    recipe: Recipe,
    how: Generate,
    prompts: Mapping[str, Sequence[str]],
    target: Sequence[str],
    texts: Sequence[str],
    parameters: Mapping[str, Any],
    say: Callable[[str], None],
) -> pa.Table:
    """All texts, before the gates."""
    model, key = adapted_model(
        how.model,
        target,
        epochs=how.epochs,
        learning_rate=how.learning_rate,
        seed=recipe.seed,
        cache=cache_directory() / "language-models",
        say=say,
    )
    generation = Generation(
        per_class=how.per_class,
        lengths=how.lengths,
        longest=how.longest,
        sampling=Sampling(how.temperature, how.top_k, how.top_p, how.repetition_penalty),
        batch_rows=how.batch_rows,
        seed=recipe.seed,
    )
    named = json.dumps([parameters, key], sort_keys=True)
    parts = hashlib.sha256(named.encode()).hexdigest()[:32]
    return write_samples(
        model,
        prompts,
        np.array([len(text.split()) for text in texts]),
        generation,
        parts=cache_directory() / "generated" / parts,
        say=say,
    )


def _judge(
    samples: pa.Table,
    how: Generate,
    labels: Sequence[str],
    labelled: tuple[Sequence[str], np.ndarray],
    protected: Iterable[str],
    say: Callable[[str], None],
) -> tuple[pa.Table, dict[str, Any]]:
    """The texts that live, and what the manifest says of all."""
    made, wanted = samples.column("text").to_pylist(), samples.column("label").to_numpy()
    alive, died = pass_gates(
        made,
        wanted,
        judge=tfidf_judge(*labelled) if how.gates.judge == "tf-idf" else None,
        confidence=how.gates.confidence,
        similarity=how.gates.similarity,
        parents=labelled[0],
        protected=protected,
        words=how.gates.copied_words,
    )
    asked = samples.column("words").to_numpy()
    for gate, count in died.items():
        say(f"gate {gate}: {count:,} of {len(made):,} texts died")
    return samples.filter(pa.array(alive)), {
        "labels": list(labels),
        "written": len(made),
        "died": died,
        "alive": counts_by_class(wanted[alive], labels),
        "length_fit": length_fit(asked, np.array([len(text.split()) for text in made])),
    }
