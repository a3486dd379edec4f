"""The routes: each checks its request's shape, calls the service, and writes the answer's shape."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from pennyweight.inference.texts import Text
from pennyweight.serve import shapes
from pennyweight.serve.catalog import NAME_PATTERN, Served, directory_below
from pennyweight.serve.explain import Occlusion, occlusions
from pennyweight.serve.options import Access
from pennyweight.serve.refusal import RefusedError
from pennyweight.serve.service import Answer, Service

__all__ = [
    "classification_routes",
    "classifier_routes",
    "compatible_routes",
    "operation_routes",
]

_Name = Annotated[str, Path(pattern=NAME_PATTERN, description="The name of a classifier.")]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    every = {400, 401, 408, 413, 422, 429, 503, *statuses}
    return {status: {"model": shapes.ErrorAnswer} for status in sorted(every)}


async def _answer(
    request: Request, service: Service, texts: Sequence[Text], names: Sequence[str | None]
) -> list[Answer]:
    """Return the service's answers; the log and the metrics learn what was asked."""
    loaded = {served.name for served in service.catalog.served}
    named = {name for name in names if name is not None} or loaded
    # A name that is not loaded would become a series of its own in the metrics.
    request.state.classifier = named.pop() if len(named) == 1 and named <= loaded else ""
    request.state.texts = len(texts)
    request.state.content = texts
    return await service.answer(texts, names, deadline=request.state.deadline)


def _row(text: str | list[str]) -> Text:
    return text if isinstance(text, str) else (text[0], text[1])


def classification_routes(service: Service) -> APIRouter:
    """Return the routes that classify texts."""
    router = APIRouter(tags=["classify"], responses=_errors(404))

    @router.post("/v1/classify")
    async def classify(request: Request, body: shapes.ClassifyRequest) -> shapes.ClassifyAnswer:
        """Classify texts, each by its own classifier if several are named."""
        texts = [_row(text) for text in body.texts]
        names: list[str | None]
        if isinstance(body.classifier, list):
            names = [*body.classifier]
            if len(names) != len(texts):
                raise RefusedError(
                    422,
                    f"{len(texts)} texts and {len(names)} classifiers; name one classifier for "
                    "all texts, or one for each",
                )
        else:
            names = [body.classifier] * len(texts)
        answers = await _answer(request, service, texts, names)
        return shapes.ClassifyAnswer(results=[_text_answer(a, body.top_k) for a in answers])

    @router.post("/v1/explain")
    async def explain(request: Request, body: shapes.ExplainRequest) -> shapes.ExplainAnswer:
        """Say how much each word of a text adds to the probability of a label."""
        text = _row(body.text)
        limit = service.limits.request_texts - 1
        needed = 1 if isinstance(text, str) else len(text)
        if limit < needed:
            raise RefusedError(
                422,
                f"this server takes {limit + 1} texts in a request, and an explanation needs "
                f"{needed + 1}; start it with a larger --max-texts",
            )
        variants = occlusions(text, limit=limit)
        texts = [text, *(variant.text for variant in variants)]
        answers = await _answer(request, service, texts, [body.classifier] * len(texts))
        return _explanation(answers, variants, body.label)

    return router


def compatible_routes(service: Service) -> APIRouter:
    """Return the routes in the shapes of other servers."""
    router = APIRouter(tags=["compatible"], responses=_errors(404))

    @router.post("/predict")
    async def predict(
        request: Request, body: shapes.PredictRequest
    ) -> list[shapes.PredictItem] | list[list[shapes.PredictItem]]:
        """Classify as text-embeddings-inference does; a batch gets a list for each text."""
        inputs = body.inputs
        is_batch = not isinstance(inputs, str) and not isinstance(inputs[0], str)
        batch = inputs if is_batch else [inputs]
        texts = [_row(text[0] if len(text) == 1 else text) for text in _lists(batch)]
        answers = await _answer(request, service, texts, [body.model] * len(texts))
        items = [_scores(answer, is_raw=body.raw_scores) for answer in answers]
        return items if is_batch else items[0]

    @router.post("/classify")
    async def vllm(request: Request, body: shapes.VllmRequest) -> shapes.VllmAnswer:
        """Classify as vLLM does, without the count of tokens."""
        texts: list[Text] = [body.input] if isinstance(body.input, str) else [*body.input]
        answers = await _answer(request, service, texts, [body.model] * len(texts))
        return shapes.VllmAnswer(
            id=f"classify-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=answers[0].served.name,
            data=[
                shapes.VllmItem(
                    index=index,
                    label=answer.ranked[0][0],
                    probs=answer.probabilities.tolist(),
                    num_classes=len(answer.probabilities),
                )
                for index, answer in enumerate(answers)
            ],
        )

    return router


def classifier_routes(service: Service, access: Access) -> APIRouter:
    """Return the routes that list, load, replace and remove classifiers."""
    router = APIRouter(tags=["classifiers"], responses=_errors())
    catalog = service.catalog

    @router.get("/v1/classifiers")
    async def classifiers() -> shapes.ClassifierList:
        """List the classifiers that are loaded."""
        return shapes.ClassifierList(
            classifiers=[_description(served) for served in catalog.served]
        )

    async def load(directory: str, name: str) -> shapes.ClassifierDescription:
        path = directory_below(access.loading_folder, directory)
        served = await service.change(lambda: catalog.load(path, name))
        return _description(served)

    @router.put("/v1/classifiers/{name}", responses=_errors(403, 404))
    async def put(name: _Name, body: shapes.LoadNamedRequest) -> shapes.ClassifierDescription:
        """Load a run under a name, in place of the classifier that has it."""
        return await load(body.directory, name)

    @router.post("/v1/classifiers", responses=_errors(403, 404))
    async def post(body: shapes.LoadRequest) -> shapes.ClassifierDescription:
        """Load a run under its directory's name, in place of the classifier that has it."""
        path = directory_below(access.loading_folder, body.directory)
        name = body.name or path.name
        if not re.fullmatch(NAME_PATTERN, name):
            raise RefusedError(
                422, f'"{name}" cannot be the name of a classifier; give another one as "name"'
            )
        return await load(body.directory, name)

    @router.delete("/v1/classifiers/{name}", status_code=204, responses=_errors(403, 404))
    async def delete(name: _Name) -> Response:
        """Remove a classifier once the texts that were accepted for it are classified."""
        if access.loading_folder is None:
            # Who may not load could not undo it.
            directory_below(None, name)
        await service.change(lambda: catalog.unload(name))
        return Response(status_code=204)

    return router


def operation_routes(service: Service) -> APIRouter:
    """Return the routes for the operator: health, readiness and metrics."""
    router = APIRouter(tags=["operation"])

    # Some probes ask for the headers alone.
    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def health() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", responses={503: {"description": "Not ready."}})
    async def readiness() -> JSONResponse:
        """Say whether requests should be sent here: not while stopping, or with nothing loaded."""
        if service.draining:
            return JSONResponse({"status": "stopping"}, 503)
        if not service.catalog.served:
            return JSONResponse({"status": "no classifier is loaded"}, 503)
        return JSONResponse({"status": "ready"})

    @router.get("/metrics", response_class=Response, responses=_errors())
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4")

    return router


def _lists(batch: Any) -> list[list[str]]:
    return [[item] if isinstance(item, str) else item for item in batch]


def _text_answer(answer: Answer, top_k: int | None) -> shapes.TextAnswer:
    return shapes.TextAnswer(
        classifier=answer.served.name,
        labels=answer.labels,
        probabilities=[
            shapes.LabelProbability(label=label, probability=probability)
            for label, probability in answer.ranked[:top_k]
        ],
    )


def _scores(answer: Answer, *, is_raw: bool) -> list[shapes.PredictItem]:
    is_multi_label = answer.served.entry.task == "multi-label"
    items = []
    for label, probability in answer.ranked:
        score = probability
        if is_raw:
            # JSON has no infinity, which the logarithm of 0 is.
            tiny = float(np.finfo(np.float64).tiny)
            score = float(np.log(max(probability, tiny)))
            if is_multi_label:
                score -= float(np.log(max(1 - probability, tiny)))
        items.append(shapes.PredictItem(score=score, label=label))
    return items


def _explanation(
    answers: Sequence[Answer], variants: Sequence[Occlusion], label: str | None
) -> shapes.ExplainAnswer:
    """Return the effects of words, from the answers to the whole text and to its variants.

    Raises:
        RefusedError: with status 422, there is no such label.
    """
    whole = answers[0]
    labels = whole.served.entry.labels
    label = whole.ranked[0][0] if label is None else label
    if label not in labels:
        raise RefusedError(422, f'no label "{label}"; the labels are {", ".join(labels)}')
    index = labels.index(label)
    probability = float(whole.probabilities[index])
    words = [
        shapes.WordEffect(
            part=variant.part,
            start=variant.start,
            stop=variant.stop,
            words=variant.words,
            effect=probability - float(answer.probabilities[index]),
        )
        for variant, answer in zip(variants, answers[1:], strict=True)
    ]
    return shapes.ExplainAnswer(
        classifier=whole.served.name, label=label, probability=probability, words=words
    )


def _description(served: Served) -> shapes.ClassifierDescription:
    entry = served.entry
    return shapes.ClassifierDescription(
        name=served.name,
        labels=list(entry.labels),
        task=entry.task,
        thresholds=None if entry.thresholds is None else [float(t) for t in entry.thresholds],
        pair_columns=None if entry.pair_columns is None else list(entry.pair_columns),
        trainable_parameters=entry.trainable_parameters,
        bytes=entry.bytes,
    )
