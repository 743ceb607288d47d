"""The description of the REST interface, for programs."""

from __future__ import annotations

from typing import Any

from tfmlm import __version__
from tfmlm.preview.metrics import METRICS_PATH
from tfmlm.preview.options import ServeOptions

_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}

_STATUS: dict[str, Any] = {
    "type": "object",
    "required": ["model_version_status"],
    "properties": {
        "model_version_status": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["version", "state", "status"],
                "properties": {
                    "version": {"type": "string"},
                    "state": {"enum": ["LOADING", "AVAILABLE", "UNLOADING", "END"]},
                    "status": {
                        "type": "object",
                        "required": ["error_code", "error_message"],
                        "properties": {
                            "error_code": {"enum": ["OK", "UNKNOWN"]},
                            "error_message": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}

_METADATA: dict[str, Any] = {
    "type": "object",
    "required": ["model_spec", "metadata"],
    "properties": {
        "model_spec": {"type": "object", "required": ["name", "signature_name", "version"]},
        "metadata": {"type": "object", "required": ["signature_def"]},
    },
}

_TENSOR = (
    'a number, a string, {"b64": …} with or without padding, or nested lists of them, as the signature says; '
    "NaN, Infinity and -Infinity are numbers here"
)
_SIGNATURE = {"type": "string", "description": "serving_default if left out"}
_REQUEST: dict[str, Any] = {
    "oneOf": [
        {
            "title": "rows",
            "type": "object",
            "required": ["instances"],
            "properties": {
                "signature_name": _SIGNATURE,
                "instances": {
                    "type": "array",
                    "minItems": 1,
                    "description": "an item for each text: the only input, or an object with all inputs",
                },
                "inputs": False,
            },
        },
        {
            "title": "columns",
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "signature_name": _SIGNATURE,
                "inputs": {"description": f"{_TENSOR}: the only input, or an object with all inputs"},
                "instances": False,
            },
        },
    ]
}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "oneOf": [
        {"required": ["predictions"], "properties": {"predictions": {"type": "array"}}},
        {"required": ["outputs"]},
    ],
}

_FORBIDDEN = {"403": "the host is not one of this server, or a page of another site asks"}
_ERRORS = _FORBIDDEN | {
    "400": "the request is wrong; the message says where",
    "404": "no such model or version",
    "503": "too much waits, or the server is stopping",
}
_POST_ERRORS = _ERRORS | {
    "408": "the request came too slowly",
    "413": "the request is too large",
    "504": "the answer was not ready in time",
}
_HEALTH = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"enum": ["alive", "ready", "stopping"]}},
}


def describe_rest(options: ServeOptions) -> dict[str, Any]:
    """An OpenAPI 3.1 document.

    Args:
        options: settings of the server, whose limits it tells.
    """
    base = "/v1/models/{name}"
    name = _parameter("name", {"type": "string", "pattern": "^[^/:]+$", "example": options.name})
    targets = {
        base: [name],
        base + "/versions/{version}": [
            name,
            _parameter("version", {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}),
        ],
        base + "/labels/{label}": [name, _parameter("label", {"type": "string", "pattern": "^[^/:]+$"})],
    }
    readiness = _operation("whether requests are taken", _HEALTH, _FORBIDDEN)
    readiness["responses"]["503"] = {
        "description": "the server is stopping",
        "content": {"application/json": {"schema": _HEALTH}},
    }
    paths: dict[str, Any] = {
        "/openapi.json": {"get": _operation("this description", {"type": "object"}, _FORBIDDEN)},
        "/healthz": {"get": _operation("that the server runs", _HEALTH, _FORBIDDEN)},
        "/readyz": {"get": readiness},
    }
    for path, parameters in targets.items():
        paths[path] = {"parameters": parameters, "get": _operation("state of versions", _STATUS, _ERRORS)}
        paths[path + "/metadata"] = {
            "parameters": parameters,
            "get": _operation("signatures of a version", _METADATA, _ERRORS),
        }
        predict = _operation("run a signature", _ANSWER, _POST_ERRORS)
        predict["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _REQUEST}},
        }
        paths[path + ":predict"] = {"parameters": parameters, "post": predict}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "TensorFlow Serving's REST interface, as tfmlm serve previews it",
            "version": __version__,
            "description": (
                f"At most {options.max_texts} texts and {options.max_body_bytes} bytes in a request, which "
                f"may be gzip (Content-Encoding) of no more bytes than that. {METRICS_PATH} has metrics for "
                "Prometheus. Production is TensorFlow Serving."
            ),
        },
        "paths": paths,
    }


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _operation(summary: str, schema: dict[str, Any], errors: dict[str, str]) -> dict[str, Any]:
    responses = {"200": {"description": "done", "content": {"application/json": {"schema": schema}}}}
    for status, description in errors.items():
        responses[status] = {
            "description": description,
            "content": {"application/json": {"schema": _ERROR}},
        }
    return {"summary": summary, "responses": responses}
