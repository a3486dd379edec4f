"""A check that an encoder reads a text alone: padding beside it must not change its answer."""

from __future__ import annotations

import numpy as np

from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.kernels.families import can_pack, unwrap
from pennyweight.errors import TrainingError
from pennyweight.training.job import Job
from pennyweight.training.stages import Built, make_predictor

__all__ = ["check_padding"]

# Rounding in bf16 changes the features of a text by less than a hundredth.
_LARGEST_DIFFERENCE = 0.05
# Enough rows to find a short and a long text among them.
_ROWS = 256


def check_padding(job: Job, built: Built, rows: TokenizedRows) -> None:
    """Refuse an encoder that gives a short text other features beside a longer one.

    Encoders that run on packed rows have no padding. Of the others, some mix all positions (FNet),
    or read the last one (XLNet's own head).

    Args:
        job: of the run.
        built: its model, untrained.
        rows: the training rows, of which two are read.

    Raises:
        TrainingError: the features differ by more than rounding can explain.
    """
    config = unwrap(built.model).config
    if can_pack(config) or len(rows) < 2:
        return
    lengths = rows.lengths[:_ROWS]
    pair = rows.take(np.array([lengths.argmin(), lengths.argmax()]))
    if pair.lengths[0] == pair.lengths[1]:
        return
    predictor = make_predictor(job, built)
    beside, alone = (
        predictor.rows(each, features=True).features for each in (pair, pair.take(np.array([0])))
    )
    assert beside is not None  # noqa: S101 - asked for
    assert alone is not None  # noqa: S101 - asked for
    size = float(np.linalg.norm(alone[0]))
    difference = float(np.linalg.norm(beside[0] - alone[0])) / max(size, 1e-12)
    if difference > _LARGEST_DIFFERENCE:
        raise TrainingError(
            f"base.name: {config.model_type} encoders with this pooling give a text "
            f"another answer beside longer texts (features differ by {difference:.0%}), because "
            "they do not leave out padding; use another encoder, or another base.pooling"
        )
