"""How commands talk to a running gateway: over its admin API, with errors that say what to do.

A command that talks to it has the options `--url` and `--token-env`. The token itself is never an option: it
would stand in the list of processes and in the shell's history.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiohttp
import typer

from gateway.cli.config import is_url

JsonObject = dict[str, Any]

DEFAULT_URL = "http://127.0.0.1:9090"
TOKEN_VARIABLE = "GATEWAY_ADMIN_TOKEN"  # noqa: S105 - a name
IDLE_SECONDS = 900.0
"""Between two pieces of an answer: a warm-up may take as long as upstream lets it."""
MAX_LINE_BYTES = 1 << 20

UrlOption = Annotated[
    str, typer.Option("--url", help="Admin plane of a running gateway: `listen.admin` of its gateway.yaml.")
]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token-env",
        metavar="NAME",
        help="Environment variable that holds the admin token, if it needs one.",
    ),
]


class AdminUnusable(Exception):
    """The gateway did not do what it was asked. The message says what to do about it."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """With which it answered; None where it did not."""


class AdminClient:
    """The admin API of the gateway at `url`. Every method raises `AdminUnusable` and nothing else."""

    def __init__(self, url: str, token: str | None, token_env: str = TOKEN_VARIABLE) -> None:
        self._url = url.rstrip("/")
        self._token_env = token_env
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    @classmethod
    def from_options(cls, url: str, token_env: str) -> AdminClient:
        """Raises `typer.BadParameter` where the URL is none."""
        if not is_url(url):
            raise typer.BadParameter("write it as http://127.0.0.1:9090", param_hint="--url")
        return cls(url, os.environ.get(token_env, "").strip() or None, token_env)

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> JsonObject:
        """The answer to a GET."""
        return await self.send("GET", path, query)

    async def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> JsonObject:
        """The answer to a request with a body of JSON, or none."""
        data = None if body is None else json.dumps(body).encode()
        async with self._answer(method, path, query or {}, data, "application/json") as answer:
            return _object(await answer.read())

    async def post_lines(self, path: str, query: Mapping[str, str], data: bytes) -> AsyncIterator[JsonObject]:
        """The lines of the answer to a POST of JSON lines, as they come."""
        async with self._answer("POST", path, query, data, "application/x-ndjson") as answer:
            async for line in answer.content:
                yield _object(line)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, query: Mapping[str, str], data: bytes | None, content_type: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=IDLE_SECONDS)
        headers = self._headers | ({"content-type": content_type} if data is not None else {})
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, read_bufsize=MAX_LINE_BYTES) as session,
                session.request(
                    method,
                    self._url + path,
                    params=query,
                    data=None if data is None else io.BytesIO(data),
                    headers=headers,
                    allow_redirects=False,
                ) as answer,
            ):
                if answer.status != 200:
                    raise AdminUnusable(self._refusal(answer.status, await answer.read()), answer.status)
                yield answer
        except aiohttp.ClientConnectorError as error:
            raise AdminUnusable(
                f"No gateway answers at {self._url} ({_reason(error)}). Is it running, and is this its admin "
                "plane? --url says where that is: `listen.admin` of its gateway.yaml."
            ) from None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AdminUnusable(
                f"The gateway at {self._url} broke off: {error or type(error).__name__}."
            ) from None

    def _refusal(self, status: int, body: bytes) -> str:
        try:
            fault = json.loads(body)
            message = str(fault["error"]["message"])
        except (ValueError, KeyError, TypeError):
            return (
                f"{self._url} answers with status {status}: it is no gateway's admin plane, or an older one."
            )
        if fault.get("type") == "error":
            return f"{self._url} is where apps call; --url wants `listen.admin` of its gateway.yaml."
        if status == 401:
            wrong = "refuses the admin token in" if self._headers else "needs its admin token: put it into"
            return f"The gateway at {self._url} {wrong} {self._token_env} (or name another with --token-env)."
        if status == 404 and message == "Not Found":
            return f"{self._url} does not know this: it is not a gateway's admin plane, or an older one."
        return message


def _reason(error: aiohttp.ClientConnectorError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


def _object(line: bytes) -> JsonObject:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise AdminUnusable("The answer is not one of a gateway's admin plane.")
    return found
