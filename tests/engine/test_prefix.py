"""The prefix cache: training above it is the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.families import CONFIGS, adapted, rows_of
from pennyweight.engine import prefix
from pennyweight.engine.attention import PACKED
from pennyweight.engine.batch import Tokens
from pennyweight.engine.device import Compute
from pennyweight.engine.feed import Feed, make_ready
from pennyweight.engine.prefix import frozen_layers, with_states
from pennyweight.errors import TrainingError


def _ready(family: str, *, precision: str = "fp32", layers: list[int] | None) -> tuple[Any, Feed]:
    model = adapted(family, attention=PACKED, layers=layers)
    compute = Compute("cpu", precision, PACKED, "")  # type: ignore[arg-type]
    return model, make_ready(model, compute, most_tokens=512)


def _loss_and_gradients(model: Any, feed: Feed, tokens: Tokens) -> tuple[torch.Tensor, list[Any]]:
    model.zero_grad()
    inputs, rows = feed.inputs(tokens, np.array([7, 2, 11, 3, 19]))
    loss = functional.cross_entropy(
        model(**inputs).logits.float(), torch.from_numpy(tokens.labels[rows])
    )
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("where", ["disk", "device"])
def test_loss_and_gradients_are_the_same_above_the_cache(
    family: str, where: Any, tmp_path: Path
) -> None:
    model, feed = _ready(family, layers=[2])
    assert frozen_layers(model) == 2
    tokens = rows_of(20)
    said: list[str] = []
    cached = with_states(model, tokens, feed=feed, where=where, cache=tmp_path, say=said.append)
    size = int(tokens.lengths.sum()) * 32 * 4
    assert said[0].startswith(f"prefix cache: {size / 1e6:.2f} MB for 2 frozen layers of 20 rows")
    loss, gradients = _loss_and_gradients(model, feed, tokens)
    # Whatever lies below is not computed again.
    with torch.no_grad():
        for parameter in prefix._prefix_parameters(model, 2):
            parameter.fill_(float("nan"))
    found, found_gradients = _loss_and_gradients(model, feed, cached)
    torch.testing.assert_close(found, loss, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients, found_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    some = cached.take(np.array([19, 7, 2, 3, 11]))
    again = feed.inputs(some, np.arange(5))[0]["inputs_embeds"]
    assert torch.equal(again, feed.inputs(cached, np.array([19, 7, 2, 3, 11]))[0]["inputs_embeds"])


def test_states_are_kept_in_the_encoder_s_precision_and_found_again(tmp_path: Path) -> None:
    model, feed = _ready("roberta", precision="bf16", layers=[1, 2])
    tokens = rows_of(20)
    said: list[str] = []

    def cache() -> Tokens:
        return with_states(model, tokens, feed=feed, where="disk", cache=tmp_path, say=said.append)

    first = cache()
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == int(tokens.lengths.sum()) * 32 * 2
    written = file.stat().st_mtime_ns
    second = cache()
    assert "from" in said[1]
    assert file.stat().st_mtime_ns == written
    assert first.states is not None
    assert second.states is not None
    assert first.states.flat.dtype == torch.bfloat16
    assert torch.equal(first.states.flat, second.states.flat)
    # Other weights below, another file.
    with torch.no_grad():
        model.get_base_model().roberta.encoder.layer[0].output.dense.bias.add_(1.0)
    cache()
    assert len(list(tmp_path.iterdir())) == 2


def test_without_room_nothing_is_written_and_the_sizes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, feed = _ready("bert", layers=[2])
    tokens = rows_of(20)

    class Usage:
        free = 1000

    monkeypatch.setattr(prefix.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(TrainingError, match=r"0\.0\d MB do not fit .* has 0\.00 MB left"):
        with_states(model, tokens, feed=feed, where="disk", cache=tmp_path, say=print)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(prefix.psutil, "virtual_memory", lambda: type("M", (), {"available": 9}))
    with pytest.raises(TrainingError, match=r"more than half of the 0\.00 MB"):
        with_states(model, tokens, feed=feed, where="device", cache=tmp_path, say=print)


def test_an_interrupted_computation_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, feed = _ready("bert", layers=[2])

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prefix, "_compute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        with_states(model, rows_of(5), feed=feed, where="disk", cache=tmp_path, say=print)
    assert list(tmp_path.iterdir()) == []


def test_it_is_refused_where_the_lowest_layer_is_trained_or_batches_are_padded(
    tmp_path: Path,
) -> None:
    model, feed = _ready("bert", layers=[0, 2])
    with pytest.raises(TrainingError, match="nothing to cache"):
        with_states(model, rows_of(5), feed=feed, where="disk", cache=tmp_path, say=print)
    padded = Feed("cpu", 512, None)
    with pytest.raises(TrainingError, match="needs packed batches"):
        with_states(model, rows_of(5), feed=padded, where="disk", cache=tmp_path, say=print)
