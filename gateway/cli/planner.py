"""`gateway planner`: the planner over JSON lines on standard input and output, one reply a line.

It drives the planner that serves requests. Only the protocol lives here; every decision is the core's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, TextIO

import msgspec

from gateway.core.planner import Kind, Planner, PlannerOptions, Prices, Question, Reported, compact_key

SCOPE = ACCOUNT = 1
"""A trace is of one workspace and one model."""

_KINDS = {kind.name.lower(): kind for kind in Kind}


class Session:
    """One trace. Knows nothing of any other."""

    def __init__(self, options: PlannerOptions | None = None) -> None:
        self._planner = Planner(options)
        self._prices = Prices()
        self._keys: dict[str, int] = {}
        self._held: set[int] = set()

    def reply(self, message: dict[str, Any]) -> dict[str, Any]:
        """The reply to one message. Raises `ValueError` for a type that the protocol does not know."""
        match message["type"]:
            case "start":
                self._prices = _prices(message)
                return {}
            case "request":
                return self._request(message)
            case "response":
                return self._response(message)
            case "wake":
                return self._wake(message)
        raise ValueError(f"unknown message type {message['type']!r}")

    def _request(self, message: dict[str, Any]) -> dict[str, Any]:
        id_ = message["id"]
        keys, ends, kinds, end = [], [], bytearray(), 0
        for key, tokens, kind in message["segments"]:
            end += tokens
            keys.append(self._key(key))
            ends.append(end)
            kinds.append(_KINDS[kind])
        question = Question(id_, SCOPE, ACCOUNT, keys, ends, bytes(kinds), self._prices)
        decision = self._planner.plan(question, message["t"], may_wait=id_ not in self._held)
        if decision.wait_for is None:
            self._held.discard(id_)
        else:
            self._held.add(id_)
        return {
            "breakpoints": [[mark.block, mark.ttl] for mark in decision.marks],
            "wait_for": decision.wait_for,
            "wake_at": self._planner.next_wake(),
        }

    def _response(self, message: dict[str, Any]) -> dict[str, Any]:
        usage = message["usage"]
        reported = Reported(
            usage["input_tokens"],
            usage["cache_read_input_tokens"],
            usage["ephemeral_5m_input_tokens"],
            usage["ephemeral_1h_input_tokens"],
        )
        self._planner.billed(message["id"], reported, message["t"])
        return {"wake_at": self._planner.next_wake()}

    def _wake(self, message: dict[str, Any]) -> dict[str, Any]:
        warm = [
            {
                "request": each.request,
                "upto": each.upto,
                "breakpoints": [[mark.block, mark.ttl] for mark in each.marks],
            }
            for each in self._planner.woken(message["t"])
        ]
        return {"warm": warm, "wake_at": self._planner.next_wake()}

    def _key(self, key: str) -> int:
        known = self._keys.get(key)
        if known is None:
            known = self._keys[key] = compact_key(blake2b(key.encode(), digest_size=8).digest())
        return known


def replies(lines: Iterable[str | bytes]) -> Iterator[bytes]:
    """The reply to each line."""
    session = Session()
    for line in lines:
        yield msgspec.json.encode(session.reply(msgspec.json.decode(line)))


def planner() -> None:
    """Answer the planner protocol: JSON lines on standard input and output, for pricing it on traces."""
    main()


def main(stdin: TextIO | None = None, stdout: TextIO | None = None) -> None:
    """Answer until the input ends."""
    source = (stdin or sys.stdin).buffer
    target = (stdout or sys.stdout).buffer
    for reply in replies(iter(source.readline, b"")):
        target.write(reply + b"\n")
        target.flush()


def _prices(message: dict[str, Any]) -> Prices:
    writes = message["write_price"]
    return Prices(
        read=message["read_price"],
        write_5m=writes["5m"],
        write_1h=writes["1h"],
        minimum_tokens=message["minimum_tokens"],
    )


if __name__ == "__main__":
    main()
