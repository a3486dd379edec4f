"""The answers of every route, over planted classifiers."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from pennyweight.serve.options import Access, Limits, ServeOptions
from serve.planted import PlantedBank, client_of, expected, plant, service_of


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A client of a server with the classifiers a, b, pairs and many."""
    options = ServeOptions(access=Access(loading_folder=tmp_path))
    with service_of(tmp_path, "a", "b") as service, client_of(service, options) as client:
        catalog = service.catalog
        catalog.load(plant(tmp_path / "pairs", "p", pair=("premise", "hypothesis")), "pairs")
        catalog.load(plant(tmp_path / "many", "m", classes=4, thresholds=[0.3] * 4), "many")
        yield client


def ranked(tag: str, text: Any, classes: int = 3) -> list[tuple[str, float]]:
    values = expected(tag, text, classes)
    order = sorted(range(classes), key=lambda index: -values[index])
    return [(f"{tag}-{index}", values[index]) for index in order]


def test_classify_answers_each_text_by_its_own_classifier(client: Any) -> None:
    body = {"texts": ["x", "y", "x"], "classifier": ["a", "b", "b"]}
    results = client.post("/v1/classify", json=body).json()["results"]
    for result, text, tag in zip(results, "xyx", "abb", strict=True):
        assert result["classifier"] == tag
        answers = [(c["label"], c["probability"]) for c in result["probabilities"]]
        assert answers == ranked(tag, text)
        assert result["labels"] == [answers[0][0]]


def test_classify_answers_pairs_several_labels_and_the_best_classes(client: Any) -> None:
    body = {"texts": [["one", "other"]], "classifier": "pairs", "top_k": 1}
    [result] = client.post("/v1/classify", json=body).json()["results"]
    [best] = result["probabilities"]
    assert (best["label"], best["probability"]) == ranked("p", ("one", "other"))[0]
    texts = [f"text {number}" for number in range(20)]
    body = {"texts": texts, "classifier": "many"}
    results = client.post("/v1/classify", json=body).json()["results"]
    for text, result in zip(texts, results, strict=True):
        assert result["labels"] == [label for label, p in ranked("m", text, 4) if p >= 0.3]
    assert len({len(result["labels"]) for result in results}) > 1


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"texts": ["x"], "classifier": "c"}, 404, 'no classifier "c"; loaded are: a, b, many'),
        ({"texts": ["x"]}, 422, "name the classifier that is to answer"),
        ({"texts": ["x", "y"], "classifier": ["a"]}, 422, "2 texts and 1 classifiers"),
        ({"texts": ["x"], "classifier": "pairs"}, 422, 'its "premise" and its "hypothesis"'),
        ({"texts": [["x", "y"]], "classifier": "a"}, 422, "takes single texts"),
        ({"texts": [["x"]], "classifier": "pairs"}, 422, "at least 2 items"),
        ({"texts": [], "classifier": "a"}, 422, "body.texts"),
        (
            {"texts": [3], "classifier": "a"},
            422,
            "0: Input should be a valid string, or: ",
        ),
        ({"texts": ["x"], "clasifier": "a"}, 422, "body.clasifier: Extra inputs"),
        ({"texts": ["x"], "classifier": "a", "top_k": 0}, 422, "body.top_k"),
    ],
)
def test_a_mistake_gets_one_line_that_says_how_to_go_on(
    client: Any, body: Any, status: int, message: str
) -> None:
    response = client.post("/v1/classify", json=body)
    answer = response.json()
    assert response.status_code == status
    assert set(answer) == {"error", "error_type"}
    assert message in answer["error"]
    assert "\n" not in answer["error"]
    assert "[" not in answer["error"].replace('[["one"], ["other"]]', "")


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", "/v1/classify", None, 405),
        ("POST", "/v1/classify", b"{", 422),
        ("POST", "/v1/classify", b'{"texts": ["\\ud800"], "classifier": "a"}', 422),
        ("POST", "/v1/classify", b'{"\\ud800": 1, "texts": ["x"]}', 422),
        ("POST", "/v1/classify", b'{"texts": ["x"], "classifier": "\\ud800"}', 422),
        ("POST", "/v1/classify", b"[" * 100_000, 400),
        ("POST", "/v1/classify", b"\xff\xfe", 422),
    ],
)
def test_every_error_has_the_same_shape(
    client: Any, method: str, path: str, content: bytes | None, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.request(method, path, content=content, headers=headers)
    assert response.status_code == status
    assert set(response.json()) == {"error", "error_type"}


def test_probes_may_ask_for_the_headers_alone(client: Any) -> None:
    assert [client.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_predict_has_the_shapes_of_text_embeddings_inference(client: Any) -> None:
    def predict(inputs: Any, model: str, **more: Any) -> Any:
        body = {"inputs": inputs, "model": model, "truncate": True, **more}
        return client.post("/predict", json=body).json()

    def scores(tag: str, text: Any) -> list[dict[str, Any]]:
        return [{"score": p, "label": label} for label, p in ranked(tag, text)]

    assert predict("x", "a") == predict(["x"], "a") == scores("a", "x")
    assert predict([["x"], ["y"]], "a") == [scores("a", "x"), scores("a", "y")]
    assert predict(["x", "y"], "pairs") == scores("p", ("x", "y"))
    assert predict([["x", "y"]], "pairs") == [scores("p", ("x", "y"))]
    assert "takes single texts" in predict(["x", "y"], "a")["error"]
    raw = predict("x", "a", raw_scores=True)
    assert [math.exp(item["score"]) for item in raw] == pytest.approx(
        [p for _, p in ranked("a", "x")]
    )
    raw = predict("x", "many", raw_scores=True)
    assert [1 / (1 + math.exp(-item["score"])) for item in raw] == pytest.approx(
        [p for _, p in ranked("m", "x", 4)]
    )


def test_classify_has_the_shape_of_vllm(client: Any) -> None:
    answer = client.post("/classify", json={"model": "b", "input": ["x", "y"], "user": "u"}).json()
    assert answer["object"] == "list"
    assert answer["model"] == "b"
    for index, (item, text) in enumerate(zip(answer["data"], "xy", strict=True)):
        assert item == {
            "index": index,
            "label": ranked("b", text)[0][0],
            "probs": expected("b", text, 3).tolist(),
            "num_classes": 3,
        }
    assert len(client.post("/classify", json={"model": "b", "input": "x"}).json()["data"]) == 1


def test_explain_says_what_each_word_adds(client: Any) -> None:
    body = {"text": "late goal wins", "classifier": "a"}
    answer = client.post("/v1/explain", json=body).json()
    label, probability = ranked("a", "late goal wins")[0]
    assert (answer["label"], answer["probability"]) == (label, probability)
    without = ["goal wins", "late wins", "late goal"]
    index = int(label[-1])
    effects = [probability - expected("a", text, 3)[index] for text in without]
    assert [word["effect"] for word in answer["words"]] == pytest.approx(effects)
    assert [word["words"] for word in answer["words"]] == ["late", "goal", "wins"]
    other = client.post("/v1/explain", json={**body, "label": "a-0"}).json()
    assert other["probability"] == expected("a", "late goal wins", 3)[0]
    wrong = client.post("/v1/explain", json={**body, "label": "b-0"})
    assert (wrong.status_code, "a-0, a-1, a-2" in wrong.json()["error"]) == (422, True)


def test_a_classifier_is_listed_loaded_replaced_and_removed(client: Any, tmp_path: Path) -> None:
    def labels() -> dict[str, list[str]]:
        answer = client.get("/v1/classifiers").json()
        return {one["name"]: one["labels"] for one in answer["classifiers"]}

    assert list(labels()) == ["a", "b", "many", "pairs"]
    plant(tmp_path / "below" / "c", "c", classes=2)
    loaded = client.post("/v1/classifiers", json={"directory": "below/c"})
    assert loaded.json()["trainable_parameters"] == 100
    assert labels()["c"] == ["c-0", "c-1"]
    client.put("/v1/classifiers/c", json={"directory": "a"})
    assert labels()["c"] == ["a-0", "a-1", "a-2"]
    assert client.delete("/v1/classifiers/c").status_code == 204
    assert "c" not in labels()
    assert client.delete("/v1/classifiers/c").status_code == 404
    (tmp_path / "empty").mkdir()
    failed = client.put("/v1/classifiers/a", json={"directory": "empty"})
    assert (failed.status_code, "name a directory that holds one" in failed.text) == (422, True)
    assert labels()["a"] == ["a-0", "a-1", "a-2"]
    plant(tmp_path / "my run", "d", classes=2)
    failed = client.post("/v1/classifiers", json={"directory": "my run"})
    assert failed.status_code == 422
    assert 'give another one as "name"' in failed.json()["error"]
    named = client.post("/v1/classifiers", json={"directory": "my run", "name": "d"})
    assert named.status_code == 200


def test_metrics_count_requests_rows_and_batches(client: Any) -> None:
    client.post("/v1/classify", json={"texts": ["x", "y"], "classifier": "a"})
    client.post("/v1/classify", json={"texts": ["x"], "classifier": "of no one"})
    page = client.get("/metrics").text
    classify = 'route="/v1/classify"'
    assert f'pennyweight_requests_total{{classifier="a",{classify},status="200"}} 1.0' in page
    assert f'pennyweight_requests_total{{classifier="",{classify},status="404"}} 1.0' in page
    assert 'pennyweight_rows_total{classifier="a"} 2.0' in page
    assert "pennyweight_batch_rows_sum 2.0" in page
    assert "pennyweight_queue_rows 0.0" in page
    assert "of no one" not in page
    client.delete("/v1/classifiers/a")
    assert 'classifier="a"' not in client.get("/metrics").text


def test_a_failure_is_logged_without_texts_and_answered_without_a_reason(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    quiet = client.post("/v1/classify", json={"texts": ["poison"], "classifier": "a"})
    assert quiet.status_code == 500
    assert "secret" not in quiet.text
    [record] = [record for record in caplog.records if record.name == "pennyweight.serve"]
    fields: dict[str, Any] = record.fields  # type: ignore[attr-defined]
    assert record.levelno == logging.ERROR
    assert fields["failure"].startswith("RuntimeError at")
    assert fields["request_id"] in quiet.text
    assert "poison" not in str(fields)


def test_texts_are_logged_only_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pennyweight.serve")
    for options in (ServeOptions(), ServeOptions(log_texts=True)):
        with service_of(tmp_path, "a") as service, client_of(service, options) as client:
            client.post("/v1/classify", json={"texts": ["a private text"]})
            fields = str(caplog.records[-1].fields)  # type: ignore[attr-defined]
            assert "'texts': 1" in fields
            assert ("a private text" in fields) == options.log_texts


def test_a_request_that_is_not_computed_in_time_is_told_so(tmp_path: Path) -> None:
    options = ServeOptions(limits=Limits(timeout_seconds=0.1))
    bank = PlantedBank(seconds=0.5)
    with (
        service_of(tmp_path, "a", options=options, bank=bank) as service,
        client_of(service, options) as client,
    ):
        response = client.post("/v1/classify", json={"texts": ["x"]})
        assert response.status_code == 503
        assert "not answered within 0.1 s" in response.json()["error"]
        assert "Retry-After" in response.headers


def test_a_server_of_one_text_a_request_explains_nothing(tmp_path: Path) -> None:
    options = ServeOptions(limits=Limits(request_texts=1))
    with (
        service_of(tmp_path, "a", options=options) as service,
        client_of(service, options) as client,
    ):
        response = client.post("/v1/explain", json={"text": "two words"})
    assert response.status_code == 422
    assert "an explanation needs 2; start it with a larger --max-texts" in response.json()["error"]


def test_only_one_thread_computes(tmp_path: Path) -> None:
    bank = PlantedBank()
    options = ServeOptions(access=Access(loading_folder=tmp_path))
    with (
        service_of(tmp_path, "a", bank=bank) as service,
        client_of(service, options) as client,
    ):
        client.post("/v1/classify", json={"texts": ["x"]})
        client.put("/v1/classifiers/b", json={"directory": "a"})
    assert len(bank.threads) == 1
