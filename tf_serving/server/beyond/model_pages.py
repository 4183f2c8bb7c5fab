"""What a model takes and answers, for programs and for people: its schema, an OpenAPI document, a page to try it.

    GET /v1/models/NAME/schema      GET /openapi.json      GET /try/NAME

What is known beyond the signature (kinds, categories, an example) comes from the files beside the export.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tf_serving.server.extensions import HttpRequest, HttpResponse, ModelsView, Route, SignatureView
from tf_serving.server.status import Code, ServingError

_MAX_VALUES = 20
_MAX_FILE_BYTES = 16 << 20
_SIGNATURE = "serving_default"
_JSON_TYPES = {"string": "string", "bool": "boolean"}


def page_routes() -> tuple[Route, ...]:
    """Return the paths. The pages themselves hold nothing of a model and need no key; what they fetch does."""
    return (
        Route("GET", "/v1/models/(?P<model>[^/:]+)/schema", _schema),
        Route("GET", "/openapi.json", _openapi),
        Route("GET", "/try", _index),
        Route("GET", "/try/(?P<model>[^/]+)", _try_page, open=True),
    )


def model_schema(model: str, models: ModelsView) -> dict[str, Any]:
    """Return what the newest version of a model takes and answers.

    Args:
        model: Name of the model.
        models: The running server's.

    Raises:
        ServingError: There is no such model, or it has no signature to predict with.
    """
    available = models.available(model)
    if not available:
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Latest({model})")
    version = available[0]
    signature = models.signatures(model, version).get(_SIGNATURE)
    if signature is None:
        raise ServingError(Code.NOT_FOUND, f"The model {model} has no signature {_SIGNATURE}")
    extra = Path(models.directory(model, version)) / "assets.extra"
    schema, profile, sample = (_read(extra / name) for name in ("schema.json", "profile.json", "sample_request.json"))
    return {
        "model": model,
        "version": str(version),
        "signature": _SIGNATURE,
        **_target(schema),
        "inputs": _inputs(signature, schema, profile, sample),
        "outputs": [
            {"name": name, "dtype": dtype, "shape": None if shape is None else list(shape)}
            for name, (dtype, shape) in signature.outputs.items()
        ],
    }


def openapi_document(models: ModelsView) -> dict[str, Any]:
    """Return an OpenAPI 3.1 document of all models that are served.

    Args:
        models: The running server's.
    """
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    }
    for number, model in enumerate(models.names()):
        try:
            schema = model_schema(model, models)
        except ServingError:
            continue
        row = f"Row{number}"
        schemas[row] = _row_schema(schema)
        base = f"/v1/models/{quote(model, safe='')}"
        paths[f"{base}:predict"] = {"post": _predict_operation(model, number, row)}
        paths[base] = {"get": _operation(model, number, "status", "The state of its versions")}
        paths[f"{base}/metadata"] = {"get": _operation(model, number, "metadata", "Its signatures")}
        paths[f"{base}/schema"] = {"get": _operation(model, number, "schema", "What it takes and answers")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Models", "version": "1", "description": "TensorFlow Serving's REST interface."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}},
        },
    }


def _schema(request: HttpRequest, groups: Mapping[str, str], models: ModelsView) -> HttpResponse:
    del request
    return _json(model_schema(unquote(groups["model"]), models))


def _openapi(request: HttpRequest, groups: Mapping[str, str], models: ModelsView) -> HttpResponse:
    del request, groups
    return _json(openapi_document(models))


def _index(request: HttpRequest, groups: Mapping[str, str], models: ModelsView) -> HttpResponse:
    del request, groups
    links = "".join(
        f'<li><a href="/try/{quote(name, safe="")}">{escape(name)}</a></li>' for name in sorted(models.names())
    )
    body = f'<!doctype html><html lang="en"><title>Models</title><h1>Models</h1><ul>{links}</ul></html>'
    return _page(body, nonce="")


def _try_page(request: HttpRequest, groups: Mapping[str, str], models: ModelsView) -> HttpResponse:
    del request
    model = unquote(groups["model"])
    if model not in models.names():
        raise ServingError(Code.NOT_FOUND, f"There is no model {model[:80]!r} to try")
    nonce = secrets.token_urlsafe(16)
    template = files("tf_serving.server.beyond").joinpath("try_page.html").read_text(encoding="utf-8")
    return _page(template.replace("@NONCE@", nonce).replace("@MODEL@", escape(model, quote=True)), nonce=nonce)


def _page(body: str, *, nonce: str) -> HttpResponse:
    source = f"'nonce-{nonce}'" if nonce else "'none'"
    policy = (
        f"default-src 'none'; script-src {source}; style-src {source}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = (
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    )
    return HttpResponse(200, body.encode(), "text/html; charset=utf-8", headers)


def _json(content: Any) -> HttpResponse:
    return HttpResponse(200, json.dumps(content, ensure_ascii=False, allow_nan=False).encode())


def _read(path: Path) -> dict[str, Any]:
    # What lies beside a model is an extra: without it, or with something else there, the signature has to do.
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _entries(content: Any, key: str) -> dict[str, dict[str, Any]]:
    found = content.get(key) if isinstance(content, dict) else None
    entries = found if isinstance(found, list) else []
    return {str(entry["name"]): entry for entry in entries if isinstance(entry, dict) and "name" in entry}


def _target(schema: Mapping[str, Any]) -> dict[str, Any]:
    target = schema.get("target")
    if not isinstance(target, dict):
        return {}
    return {"task": target.get("task"), "target": target.get("name"), "classes": target.get("classes") or []}


def _inputs(
    signature: SignatureView, schema: Mapping[str, Any], profile: Mapping[str, Any], sample: Mapping[str, Any]
) -> list[dict[str, Any]]:
    features, columns = _entries(schema, "features"), _entries(profile, "columns")
    instances = sample.get("instances")
    first = instances[0] if isinstance(instances, list) and instances and isinstance(instances[0], dict) else {}
    # In the order of the user's table, where it is known.
    names = [name for name in features if name in signature.inputs]
    names += [name for name in signature.inputs if name not in features]
    inputs = []
    for name in names:
        dtype, shape = signature.inputs[name]
        entry: dict[str, Any] = {"name": name, "dtype": dtype, "shape": None if shape is None else list(shape)}
        feature, column = features.get(name, {}), columns.get(name, {})
        entry |= {key: feature[key] for key in ("kind", "integer") if key in feature}
        top = column.get("top_values")
        if dtype == "string" and isinstance(top, list) and 0 < column.get("num_distinct", 0) <= _MAX_VALUES:
            entry["values"] = [str(value[0]) for value in top if isinstance(value, list) and value]
        elif dtype != "string":
            limits = {key: column.get(key) for key in ("min", "max")}
            entry |= {key: value for key, value in limits.items() if _is_finite(value)}
        example = first.get(name)
        if isinstance(example, str) or _is_finite(example):
            entry["example"] = example
        inputs.append(entry)
    return inputs


def _is_finite(value: Any) -> bool:
    """Return whether a value is a number that JSON has a word for."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _row_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = {}
    for entry in schema["inputs"]:
        kind: dict[str, Any] = {"type": _JSON_TYPES.get(entry["dtype"], "number")}
        if entry["dtype"].startswith(("int", "uint")):
            kind = {"type": "integer"}
        if kind["type"] == "string":
            encoded = {"type": "object", "properties": {"b64": {"type": "string", "contentEncoding": "base64"}}}
            kind = {"anyOf": [kind, {**encoded, "required": ["b64"], "additionalProperties": False}]}
        for _ in (entry["shape"] or [None])[1:]:
            kind = {"type": "array", "items": kind}
        if "example" in entry:
            kind["examples"] = [entry["example"]]
        properties[entry["name"]] = kind
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _predict_operation(model: str, number: int, row: str) -> dict[str, Any]:
    operation = _operation(model, number, "predict", "Predictions for rows")
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "signature_name": {"type": "string"},
                        "instances": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"$ref": f"#/components/schemas/{row}"},
                        },
                    },
                    "required": ["instances"],
                }
            }
        },
    }
    return operation


def _operation(model: str, number: int, name: str, summary: str) -> dict[str, Any]:
    error = {
        "description": "What is wrong",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return {
        "operationId": f"{name}{number}",
        "summary": summary,
        "tags": [model],
        "responses": {
            "200": {"description": summary, "content": {"application/json": {"schema": {"type": "object"}}}},
            "default": error,
        },
        "security": [{}, {"key": []}],
    }
