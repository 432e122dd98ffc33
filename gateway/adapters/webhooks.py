"""Alerts as HTTP requests: incoming webhooks of Slack and what is compatible with them, and JSON of our own,
signed. One attempt each; when to try again is `core/alerts.py`'s.

A webhook's URL is a credential: nothing of it but its host is ever said. Where requests may go is
`outbound.py`'s: no redirects, no proxies of the environment, no metadata services, and no private networks
unless the target allows them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.adapters.outbound import Outbound, OutboundError
from gateway.core.alerts import Alert, Format, Outcome, Target, alert_json, slack_text

TIMEOUT_SECONDS = 10.0
LARGEST_ANSWER_BYTES = 65_536
"""Of an answer, which nobody reads."""
SIGNATURE_HEADER, ID_HEADER = "x-gateway-signature", "x-gateway-alert-id"
_AGAIN = frozenset({408, 425, 429})
"""Statuses below 500 after which trying again can help."""


class Webhooks:
    """Sends. `now` is the wall clock, for signatures."""

    def __init__(self, now: Callable[[], float], *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._now = now
        self._public, self._private = (
            Outbound(timeout_seconds=timeout_seconds, largest_bytes=LARGEST_ANSWER_BYTES, private=private)
            for private in (False, True)
        )

    async def send(self, target: Target, alert: Alert) -> Outcome:
        """One attempt. Raises nothing but a cancellation."""
        try:
            url, secret = target.url(), target.secret() if target.secret else None
        except (OSError, ValueError) as error:
            return _failed(f"its URL or secret cannot be read: {error}")
        if not is_allowed(url):
            return _failed("its URL must begin with https://, or http:// for this machine only", final=True)
        body, headers = _request(target.format, alert, secret, round(self._now()))
        outbound = self._private if target.private else self._public
        try:
            answer = await outbound.fetch(url, body=body, headers=headers)
        except OutboundError as error:
            return _failed(str(error))
        if 200 <= answer.status < 300:
            return Outcome(delivered=True, final=True, said=f"status {answer.status}")
        final = answer.status < 500 and answer.status not in _AGAIN
        return _failed(f"status {answer.status}", final=final)


def signature(secret: str, body: bytes, at: int) -> str:
    """As `t=1790000000,v1=<hex>`: HMAC-SHA-256 over the instant, a dot and the body. Receivers compare in
    constant time and refuse instants that are minutes old."""
    signed = str(at).encode() + b"." + body
    return f"t={at},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def is_allowed(url: str) -> bool:
    """Whether a URL may be one of a webhook: https, or http where it leads to this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    return parts.scheme == "http" and _is_here(host)


def _request(format_: Format, alert: Alert, secret: str | None, at: int) -> tuple[bytes, dict[str, str]]:
    content = {"text": slack_text(alert)} if format_ is Format.SLACK else alert_json(alert)
    body = json.dumps(content, separators=(",", ":")).encode()
    headers = {"content-type": "application/json", ID_HEADER: alert.id, "user-agent": "claude-cache-gateway"}
    if secret is not None:
        headers[SIGNATURE_HEADER] = signature(secret, body, at)
    return body, headers


def _failed(said: str, *, final: bool = False) -> Outcome:
    return Outcome(delivered=False, final=final, said=said[:200])


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
