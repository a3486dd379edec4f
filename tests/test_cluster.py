"""Finding Ray and a cluster."""

from __future__ import annotations

import pytest

from pennyweight import cluster
from pennyweight.errors import RunError


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with (
        pytest.raises(RunError, match=r"needs Ray; run: pip install 'pennyweight\[ray\]'$"),
        cluster.connected_ray(),
    ):
        pass


def test_an_address_without_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with (
        pytest.raises(RunError, match=r"^no Ray cluster can be used at RAY_ADDRESS=nowhere: \S"),
        cluster.connected_ray(),
    ):
        pass
