"""The OpenAPI description: requests that are made from it never make the server fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pennyweight.serve.app import make_app
from pennyweight.serve.options import Access, ServeOptions
from pennyweight.serve.service import Service
from serve.planted import PlantedBank, plant

schemathesis = pytest.importorskip("schemathesis")

# A route that is added or is no longer described must be changed here as well.
_OPERATIONS = [
    "POST /v1/classify",
    "POST /v1/explain",
    "POST /predict",
    "POST /classify",
    "GET /v1/classifiers",
    "POST /v1/classifiers",
    "PUT /v1/classifiers/{name}",
    "DELETE /v1/classifiers/{name}",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
]
_WITH_DATA = [name for name in _OPERATIONS if not name.startswith("GET")]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs")
    options = ServeOptions(access=Access(loading_folder=folder, hosts=("*",)))
    service = Service(PlantedBank(), options)
    for tag in ("a", "b"):
        service.catalog.load(plant(folder / tag, tag), tag)
    api = schemathesis.openapi.from_asgi("/openapi.json", make_app(service, options))
    described = [operation.ok() for operation in api.get_all_operations()]
    yield {f"{one.method.upper()} {one.path}": one for one in described}
    service.close()


def test_every_route_is_described(operations: dict[str, Any]) -> None:
    assert sorted(operations) == sorted(_OPERATIONS)


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "positive") for name in _OPERATIONS), *((name, "negative") for name in _WITH_DATA)],
)
def test_answers_are_as_described_and_the_server_never_fails(
    operations: dict[str, Any], name: str, mode: str
) -> None:
    # Data of the right shape can name classifiers that are not loaded, and is then refused.
    excluded = [schemathesis.checks.positive_data_acceptance]

    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(case=operations[name].as_strategy(schemathesis.GenerationMode(mode)))
    def ask(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500, response.text
        case.validate_response(response, excluded_checks=excluded)

    ask()
