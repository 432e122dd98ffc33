"""The admin plane of a whole gateway: its API, asked by its own OpenAPI document and by what is nearly that,
and its page. It never fails on its side, and every answer of the API is what the document says.

An input is a line of method and target, and after an empty line a body."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from yarl import URL

from tests.fuzz.target import CORPUS, Check, Target
from tests.support.stack import a_stack

Json = Any
_SHOWN = re.compile(rb"(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) (/[\x21-\x7e]*)")
MOST_BYTES = 8_000
"""Of a target. aiohttp itself refuses longer ones, before the application."""
_SECONDS = 10.0
_FORM = "application/x-www-form-urlencoded"
_VALUES = {
    "workspace": "demo", "month": "2026-11", "period": "day", "by": "model", "limit": "month",
    "subject": "poor", "name": "nightly", "from": "2026-11-01", "to": "2026-11-22", "id": "gw_1",
    "scope": "workspace",
}  # fmt: skip


@asynccontextmanager
async def _serving(folder: Path) -> AsyncIterator[Check]:
    async with a_stack(folder) as stack, aiohttp.ClientSession() as session:
        base = stack.service.admin_url
        async with session.get(f"{base}/v1/openapi.json") as answer:
            document: Json = await answer.json()
        promises = _Promises(document)
        assert not list(unasked(document)), "run `python -m tests.fuzz.admin`: it writes what is missing"

        async def check(data: bytes) -> None:
            first, _, body = data.partition(b"\n\n")
            shown = _SHOWN.fullmatch(first)
            if shown is None or len(first) > MOST_BYTES:
                return
            method, target = shown[1].decode(), shown[2].decode()
            try:
                url = URL(base + target, encoded=True)
            except ValueError:
                return
            kind = {"content-type": "application/json" if body[:1] in (b"{", b"[") else _FORM}
            timeout = aiohttp.ClientTimeout(total=_SECONDS)
            async with session.request(
                method, url, data=body or None, headers=kind, allow_redirects=False, timeout=timeout
            ) as got:
                text = b"" if got.content_type == "text/event-stream" else await got.read()
            assert got.status < 500, (first, text)
            if method not in ("HEAD", "OPTIONS") and target.startswith("/v1/"):
                promises.check(method, url.raw_path, got.status, got.content_type, text)

        yield check


class _Promises:
    """What the document says of each answer."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._paths = [
            (re.compile(re.sub(r"\\\{[^}]+\}", "[^/]+", re.escape(path))), methods)
            for path, methods in sorted(document["paths"].items(), key=lambda item: "{" in item[0])
        ]
        self._validators: dict[str, Draft202012Validator] = {}

    def check(self, method: str, path: str, status: int, kind: str, text: bytes) -> None:
        operation = self._operation(method, path)
        if operation is None:
            assert status in (400, 404, 405), (method, path, status)
            self._valid({"$ref": "#/components/schemas/Error"}, text)
            return
        assert str(status) in operation["responses"], (method, path, status, text[:200])
        content = operation["responses"][str(status)]["content"]
        assert kind in content
        for line in text.splitlines() if kind == "application/x-ndjson" else [text]:
            self._valid(content[kind]["schema"], line)

    def _operation(self, method: str, path: str) -> Mapping[str, Json] | None:
        for pattern, methods in self._paths:
            if pattern.fullmatch(path):
                found: Mapping[str, Json] | None = methods.get(method.lower())
                return found
        return None

    def _valid(self, schema: Json, text: bytes) -> None:
        key = json.dumps(schema)
        if key not in self._validators:
            components = {"components": self._document["components"]}
            self._validators[key] = Draft202012Validator({**schema, **components})
        self._validators[key].validate(json.loads(text))


def unasked(document: Json) -> Iterator[tuple[str, bytes]]:
    """For each operation that no file of the corpus asks: a name for that file, and what is to be in it."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = f"{method}{path.translate(str.maketrans('/{}', '-__'))}"
            if not (CORPUS / "admin" / name).exists():
                yield name, _request(document, path, method, operation)


def _request(document: Json, path: str, method: str, operation: Json) -> bytes:
    query = []
    for parameter in operation.get("parameters", ()):
        value = _VALUES.get(parameter["name"], "1")
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", value)
        else:
            query.append(f"{parameter['name']}={value}")
    line = f"{method.upper()} {path}" + ("?" + "&".join(query) if query else "")
    body = ""
    for kind in operation.get("requestBody", {}).get("content", {}).values():
        body = json.dumps(_example(document, kind["schema"]))
    return f"{line}\n\n{body}".encode()


def _example(document: Json, schema: Json, name: str = "") -> Json:
    if "$ref" in schema:
        return _example(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], name)
    if "anyOf" in schema:
        return _example(document, schema["anyOf"][0], name)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "object":
            return {key: _example(document, each, key) for key, each in schema.get("properties", {}).items()}
        case "array":
            return [_example(document, schema.get("items", {}), name)]
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case _:
            return _VALUES.get(name, "a text")


_WORDS = (
    b"?", b"&", b"=", b"%00", b"%0d%0a", b"%2e%2e%2f", b"%ff", b"+", b"workspace=other", b"limit=0",
    b"limit=-1", b"limit=99999999999999999999", b"before=0", b"by=x", b"reason=x", b"1e400", b"-1", b"NaN",
    b'"$5"', b'"amount"', b'"expires_at"', b'"reason"', b'"2026-02-30T00:00:00Z"', b'"9999-12-31T23:59:59Z"',
    b"{id}", b"null", b"DELETE ", b"\n\n", b"PUT ", b"HEAD ", b"/v1/budgets", b"/v1/overrides",
    b"/v1/grants", b"/v1/freezes", b"/metrics", b"/livez", b"/page", b"/v1/me", b'"month"', b'"demo"',
    b'"workspace"', b'"usd"',
)  # fmt: skip

TARGETS = (Target(name="admin", open=_serving, words=_WORDS, rounds=200),)


async def _write_missing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            a_stack(Path(folder)) as stack,
            aiohttp.ClientSession() as session,
            session.get(f"{stack.service.admin_url}/v1/openapi.json") as answer,
        ):
            document = await answer.json()
    (CORPUS / "admin").mkdir(exist_ok=True)
    for name, content in list(unasked(document)):
        (CORPUS / "admin" / name).write_bytes(content)


if __name__ == "__main__":
    asyncio.run(_write_missing())
