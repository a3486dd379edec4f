"""The prefix cache: training from it is the same as training without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.families import CONFIGS, adapted, rows_of
from pennyweight.engine.batches import prefix
from pennyweight.engine.batches.batcher import Batcher, PaddedBatcher
from pennyweight.engine.batches.prefix import PrefixCache, cache_prefix
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.families import frozen_layers
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.errors import TrainingError


def _ready(
    family: str, *, precision: str = "fp32", layers: list[int] | None
) -> tuple[Any, Batcher]:
    model = adapted(family, attention=PACKED, layers=layers)
    compute = Compute("cpu", precision, PACKED, "")  # type: ignore[arg-type]
    return model, prepare_model(model, compute, max_tokens=512)


def _loss_and_gradients(
    model: Any, batcher: Batcher, rows: TokenizedRows
) -> tuple[torch.Tensor, list[Any]]:
    model.zero_grad()
    inputs, order = batcher.inputs(rows, np.array([7, 2, 11, 3, 19]))
    loss = functional.cross_entropy(
        model(**inputs).logits.float(), torch.from_numpy(rows.labels[order])
    )
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("where", ["disk", "device"])
def test_loss_and_gradients_are_the_same_above_the_cache(
    family: str, where: Any, tmp_path: Path
) -> None:
    model, batcher = _ready(family, layers=[2])
    assert frozen_layers(model) == 2
    rows = rows_of(20)
    messages: list[str] = []
    cached = cache_prefix(
        model, rows, batcher=batcher, cache=PrefixCache(where, tmp_path, messages.append)
    )
    size = int(rows.lengths.sum()) * 32 * 4
    assert messages[0].startswith(
        f"prefix cache: {size / 1e6:.2f} MB for 2 frozen layers of 20 rows"
    )
    loss, gradients = _loss_and_gradients(model, batcher, rows)
    # The layers below are not computed again.
    with torch.no_grad():
        for parameter in prefix._prefix_parameters(model, 2):
            parameter.fill_(float("nan"))
    cached_loss, cached_gradients = _loss_and_gradients(model, batcher, cached)
    torch.testing.assert_close(cached_loss, loss, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients, cached_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    selected = cached.take(np.array([19, 7, 2, 3, 11]))
    states = batcher.inputs(selected, np.arange(5))[0]["inputs_embeds"]
    assert torch.equal(
        states, batcher.inputs(cached, np.array([19, 7, 2, 3, 11]))[0]["inputs_embeds"]
    )


def test_states_are_kept_in_the_encoder_s_precision_and_found_again(tmp_path: Path) -> None:
    model, batcher = _ready("roberta", precision="bf16", layers=[1, 2])
    rows = rows_of(20)
    messages: list[str] = []

    def cache() -> TokenizedRows:
        return cache_prefix(
            model, rows, batcher=batcher, cache=PrefixCache("disk", tmp_path, messages.append)
        )

    first = cache()
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == int(rows.lengths.sum()) * 32 * 2
    written = file.stat().st_mtime_ns
    second = cache()
    assert messages[1].endswith(f"read from {file}")
    assert file.stat().st_mtime_ns == written
    assert first.states is not None
    assert second.states is not None
    assert first.states.flat.dtype == torch.bfloat16
    assert torch.equal(first.states.flat, second.states.flat)
    # Other weights below give another file.
    with torch.no_grad():
        model.get_base_model().roberta.encoder.layer[0].output.dense.bias.add_(1.0)
    cache()
    assert len(list(tmp_path.iterdir())) == 2


def test_without_room_nothing_is_written_and_the_sizes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batcher = _ready("bert", layers=[2])
    rows = rows_of(20)

    class Usage:
        free = 1000

    monkeypatch.setattr(prefix.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(TrainingError, match=r"0\.0\d MB do not fit .* has 0\.00 MB left"):
        cache_prefix(model, rows, batcher=batcher, cache=PrefixCache("disk", tmp_path, print))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(prefix.psutil, "virtual_memory", lambda: type("M", (), {"available": 9}))
    with pytest.raises(TrainingError, match=r"more than half of the 0\.00 MB"):
        cache_prefix(model, rows, batcher=batcher, cache=PrefixCache("device", tmp_path, print))


def test_an_interrupted_computation_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batcher = _ready("bert", layers=[2])

    def interrupt(*_: Any) -> Iterator[tuple[slice, torch.Tensor]]:
        yield slice(0, 1), torch.zeros(1, 32)
        raise KeyboardInterrupt

    monkeypatch.setattr(prefix, "_prefix_states", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache_prefix(model, rows_of(5), batcher=batcher, cache=PrefixCache("disk", tmp_path, print))
    assert list(tmp_path.iterdir()) == []


def test_it_is_refused_where_the_lowest_layer_is_trained_or_batches_are_padded(
    tmp_path: Path,
) -> None:
    model, batcher = _ready("bert", layers=[0, 2])
    refusal = r"no layer can be cached; caching needs packed batches .* and frozen lowest layers"
    with pytest.raises(TrainingError, match=refusal):
        cache_prefix(model, rows_of(5), batcher=batcher, cache=PrefixCache("disk", tmp_path, print))
    padded = PaddedBatcher("cpu", 512)
    with pytest.raises(TrainingError, match=refusal):
        cache_prefix(model, rows_of(5), batcher=padded, cache=PrefixCache("disk", tmp_path, print))
