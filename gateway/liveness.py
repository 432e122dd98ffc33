"""Whether a gateway on this machine is alive, asked with next to nothing: containers ask every few seconds,
and loading all commands to do so would cost more than the gateway itself does at rest.

The standard library alone is imported here. `gateway healthcheck` is this with options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

ADMIN_VARIABLE = "GATEWAY_LISTEN__ADMIN"
TIMEOUT_SECONDS = 3.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104 - read, not bound


def at_once(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[bool, str] | None:
    """The answer to `gateway healthcheck`, where that needs neither options nor the settings; else None."""
    address = environ.get(ADMIN_VARIABLE)
    if [*arguments] != ["healthcheck"] or not address:
        return None
    try:
        return ask(admin_url(address), "/livez", TIMEOUT_SECONDS)
    except ValueError:
        return None  # the command says in more words what is wrong


def ask(url: str, path: str, seconds: float) -> tuple[bool, str]:
    """Whether that probe of the admin plane at `url` answers 200 within the time, and a sentence about it.
    Raises `ValueError` where the URL is none."""
    import http.client  # half of what this takes to load, and most commands ask for nothing

    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or 80
    if host is None or parts.scheme != "http":
        raise ValueError("write it as http://127.0.0.1:9090")
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(4096)
    except (OSError, http.client.HTTPException) as error:
        return False, f"No gateway answers at {url}{path}: {error or type(error).__name__}."
    finally:
        connection.close()
    if answer.status != 200:
        return False, f"{url}{path} answers with status {answer.status}{_why(body)}."
    return True, f"The gateway at {url} is {'alive' if path == '/livez' else 'ready'}."


def admin_url(address: str) -> str:
    """The URL at which a process of the same machine reaches a listener on `address`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _why(body: bytes) -> str:
    """What a probe gives as its reasons."""
    try:
        failing = json.loads(body)["failing"]
        return f" ({', '.join(str(reason) for reason in failing)})"
    except (ValueError, KeyError, TypeError):
        return ""
