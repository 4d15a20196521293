"""The HTTP side: routes, limits while a body is read, and errors that say what is expected."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

import crossreg
from crossreg.services.serving.answers import Answer, Problem, Question, Ready, answer, columns, names
from crossreg.services.serving.inputs import IMAGE_TYPES, RefusedError, from_image, from_json
from crossreg.services.serving.service import Active, Service, UnavailableError
from crossreg.services.serving.span import SpanCheck

__all__ = ["build_app"]

_log = logging.getLogger(__name__)
_BODY_SECONDS = 30.0
# what is still read, and thrown away, of a body that is too large: a client that is writing does not read an answer
_DISCARDED = 64 * 10**6
_TYPES = ("application/json", *IMAGE_TYPES)
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "the body is not JSON",
        408: "the body did not arrive in time",
        413: "the body is too large",
        415: "another content type",
        422: "not what the model takes",
        503: "no replica answers now",
    }.items()
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": Question.model_json_schema()},
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
        },
    }
}


def build_app(service: Service, states: Callable[[], dict[str, int]]) -> FastAPI:
    """Return the application.

    Args:
        service: answers.
        states: how many replicas are in which state; may block.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch())
        yield
        watching.cancel()

    app = FastAPI(
        title="crossreg",
        version=crossreg.__version__,
        description="Predictions averaged over draws of learned noise.",
        lifespan=lifespan,
    )
    _handle_errors(app)
    app.openapi = lambda: _openapi(app, service)  # type: ignore[method-assign]

    @app.post("/predict", response_model=Answer, responses=_PROBLEMS, openapi_extra=_BODY)
    async def predict(request: Request, resize: bool = False) -> Any:
        """Predict rows of a table, `{"rows": [{...}]}`, arrays, `{"inputs": [...]}`, or one PNG or JPEG as the body.

        The same input gets the same answer from the same version, up to rounding, whatever else is asked at the same
        time. `resize` brings an image of another size to the model's.
        """
        content_type = _content_type(request)
        active = service.active
        body = await _read(request, service.config.max_bytes)
        # decoding may take a while, and others wait for this loop
        warnings: list[str] = []
        x = await asyncio.to_thread(_decode, body, content_type, active, service.config.max_examples, resize, warnings)
        mean, spread = await service.predict(x, active)
        if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
            raise RefusedError(422, "the inputs are too large for the model to compute with")
        return JSONResponse(await asyncio.to_thread(answer, active, mean, spread, service.config.samples, warnings))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "alive"}

    @app.get("/readyz", response_model=Ready, responses={503: {"model": Ready}})
    async def readyz() -> Any:
        """Say which version answers, and whether replicas run."""
        active = service.active
        replicas = await asyncio.to_thread(states)
        ready = replicas.get("RUNNING", 0) > 0
        content = {
            "status": "ready" if ready else "no replica runs",
            "model": active.version.uri,
            "version": active.version.version,
            "model_id": active.version.model_id,
            "since": active.since,
            "task": active.model.task,
            "input_shape": list(active.model.stored_shape),
            "images": active.model.images,
            "columns": columns(active),
            "classes": names(active),
            "replicas": replicas,
            "retried": service.retried,
            "trouble": service.trouble,
        }
        return JSONResponse(content, status_code=200 if ready else 503)

    return app


def _decode(
    body: bytes, content_type: str, active: Active, max_examples: int, resize: bool, warnings: list[str]
) -> np.ndarray:
    if content_type in IMAGE_TYPES:
        x = from_image(body, content_type, active.model, resize)
    else:
        x = from_json(body, active.model, max_examples, warnings)
    check = SpanCheck(active.model)
    check.add(x)
    warnings += check.warnings()
    return x


def _openapi(app: FastAPI, service: Service) -> dict[str, Any]:
    """Return the API's description with the fields of the model that answers now."""
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    fields = columns(service.active)
    if fields is not None:
        body = found["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        types = {"number": "number", "boolean": "boolean"}
        row = {
            "type": "object",
            "required": [one["name"] for one in fields],
            "additionalProperties": False,
            "properties": {
                one["name"]: {
                    "type": [types.get(one["kind"], "string"), "null"],
                    "description": f"{one['kind']}: {one['expects']}",
                }
                for one in fields
            },
        }
        body["schema"] = {
            "type": "object",
            "properties": {"rows": {"type": "array", "items": row}},
            "required": ["rows"],
        }
        body["example"] = {"rows": [{one["name"]: one["example"] for one in fields}]}
    return found


def _content_type(request: Request) -> str:
    found = request.headers.get("content-type", "")
    kind = found.partition(";")[0].strip().lower()
    if kind not in _TYPES:
        raise RefusedError(415, f"content type is {found[:100]!r}; expected {', '.join(_TYPES)} (one image, as it is)")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RefusedError(415, "the body is compressed; send it as it is")
    return kind


async def _read(request: Request, limit: int) -> bytes:
    """Return the body; no more than `limit` bytes of it are ever held."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > limit + _DISCARDED:
                    break
                else:
                    chunks.clear()
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {_BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise RefusedError(400, "the connection ended before the body did") from None
    if size > limit:
        raise RefusedError(413, f"the body is larger than {limit:,} bytes; send fewer examples in a request")
    return b"".join(chunks)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse({"detail": error.message}, status_code=error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        return JSONResponse({"detail": said}, status_code=422)

    @app.exception_handler(UnavailableError)
    async def unavailable(request: Request, error: UnavailableError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "1"})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the service failed; its log says why"}, status_code=500)
