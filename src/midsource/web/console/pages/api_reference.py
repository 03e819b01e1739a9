"""The API, and the page that shows its document to people: operations by family, and the shapes of bodies and answers.

GET /api/v1/docs            this page
    /api/v1/…               the API itself (web/api/app.py)

The page is made from the same OpenAPI document that programs read at ``/api/v1/openapi.json``; it needs no script. What the
document says stays English, like errors, because people search for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.web.api.app import PATH, ApiMount, api_routes
from midsource.web.console.frame import Frame
from midsource.web.routing import Page

SUCCESSES = ("200", "201", "202")


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter of an operation or a field of a shape. ``kind`` may name a shape (``shape``)."""

    name: str
    kind: str
    shape: str
    where: str
    required: bool
    says: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. ``body`` and ``answer``: names of shapes, '' where there is none."""

    method: str
    path: str
    says: str
    scope: str
    parameters: Sequence[Field]
    body: str
    answer: str
    many: bool
    status: str
    refusals: Sequence[str]


@dataclass(frozen=True, slots=True)
class Shape:
    """A body or an answer."""

    name: str
    says: str
    fields: Sequence[Field]


@dataclass(frozen=True, slots=True)
class Reference:
    """The whole document, for reading."""

    families: Mapping[str, Sequence[Operation]]
    shapes: Sequence[Shape]


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the API and the page about it."""
    mounted = api_routes(frame.config, frame.instance, frame.database, frame.clock)
    (mount,) = (route for route in mounted if isinstance(route, ApiMount))
    reference = reference_of(mount.api.openapi())

    async def docs(request: Request) -> Response:
        return frame.page(
            request,
            "api_reference.html",
            "api",
            reference=reference,
            base=PATH,
            origin=f"{request.url.scheme}://{request.url.netloc}",
        )

    return [Page(f"{PATH}/docs", docs), mount]


def reference_of(document: Mapping[str, Any]) -> Reference:
    """Read an OpenAPI document as FastAPI writes it."""
    families: dict[str, list[Operation]] = {}
    for path, item in document["paths"].items():
        for method, said in item.items():
            families.setdefault(said["tags"][0], []).append(_operation(method, path, said))
    shapes = [
        Shape(name, shape.get("description", ""), list(_fields(shape)))
        for name, shape in document["components"]["schemas"].items()
        if "properties" in shape
    ]
    return Reference(families, shapes)


def _operation(method: str, path: str, said: Mapping[str, Any]) -> Operation:
    says, _, scope = said["description"].partition("\n\nScope: ")
    status = next(code for code in SUCCESSES if code in said["responses"])
    answer, many = _answer(said["responses"][status])
    body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return Operation(
        method.upper(),
        path,
        says,
        scope.strip("`."),
        [_parameter(parameter) for parameter in said.get("parameters", ())],
        _shape(body),
        answer,
        many,
        status,
        [code for code in said["responses"] if code not in SUCCESSES],
    )


def _answer(response: Mapping[str, Any]) -> tuple[str, bool]:
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if schema.get("type") == "array":
        return _shape(schema["items"]), True
    return _shape(schema) or next(iter(content), ""), False


def _parameter(said: Mapping[str, Any]) -> Field:
    schema = said["schema"]
    return Field(
        said["name"], _kind(schema), "", said["in"], said.get("required", False),
        said.get("description") or schema.get("description", ""),
    )  # fmt: skip


def _fields(shape: Mapping[str, Any]) -> Iterator[Field]:
    required = shape.get("required", ())
    for name, schema in shape["properties"].items():
        items = schema.get("items", schema)
        yield Field(name, _kind(schema), _shape(items), "", name in required, schema.get("description", ""))


def _kind(schema: Mapping[str, Any]) -> str:
    """Say the type of a value in a word or two."""
    if "anyOf" in schema:
        return " | ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"{_kind(schema.get('items', {}))} []"
    return _shape(schema) or schema.get("format") or schema.get("type", "any")


def _shape(schema: Mapping[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
