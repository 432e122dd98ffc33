"""Message threads: conversations that the API keeps, so that the client sends only what is new.

Source: message threads beta page and migration notes (November 2026), error classes of the official SDK
2.12. State is kept about five minutes after its last use; each response can be continued once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from gateway.sim.validate import Caller
from gateway.sim.wire import ApiError, JsonObject, invalid, not_found

KEPT_SECONDS: Final = 300.0
_FIXED: Final = ("model", "thinking", "tool_choice", "cache_control")
_CREATE_ONLY: Final = ("system", "tools")


@dataclass(slots=True, kw_only=True)
class _Stored:
    workspace: str
    fingerprint: dict[str, str]
    kept: JsonObject
    """system and tools, as the create gave them."""
    messages: list[JsonObject]
    """The whole conversation, the reply that this is stored under included."""
    used_at: float
    state: str = "open"
    """open, in_flight, continued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request of a thread: its body with everything that the API already holds put back."""

    body: JsonObject
    previous_id: str | None
    fingerprint: dict[str, str]


class Threads:
    def __init__(self) -> None:
        self._stored: dict[str, _Stored] = {}

    def clear(self) -> None:
        """Lose every thread, as the API may at any time ("best effort")."""
        self._stored.clear()

    def open_turn(self, body: JsonObject, caller: Caller, at: float) -> Turn | None:
        """Expand a request that carries `thread`; None for one that does not. Raises the thread errors.
        Changes nothing yet: `begin` takes the turn."""
        thread = body.get("thread")
        if thread is None:
            return None
        if not isinstance(thread, dict) or thread.get("type") not in ("create", "continue"):
            raise invalid("thread.type: Input should be 'create' or 'continue'")
        plain = {name: value for name, value in body.items() if name != "thread"}
        fingerprint = _fingerprint(body, caller)
        if thread["type"] == "create":
            return Turn(body=plain, previous_id=None, fingerprint=fingerprint)
        previous_id = thread.get("previous_message_id")
        if not isinstance(previous_id, str):
            raise invalid("thread.continue.previous_message_id: Field required")
        stored = self._find(previous_id, caller.workspace, at)
        _check_continue(body, stored, fingerprint)
        expanded = {**plain, **stored.kept, "messages": [*stored.messages, *body["messages"]]}
        return Turn(body=expanded, previous_id=previous_id, fingerprint=fingerprint)

    def begin(self, turn: Turn) -> None:
        """The continue was accepted: nobody else may continue the same response meanwhile."""
        if turn.previous_id is not None:
            self._stored[turn.previous_id].state = "in_flight"

    def finish(
        self, turn: Turn, caller: Caller, message_id: str, content: list[JsonObject], at: float
    ) -> None:
        """The answer is complete: keep the conversation under its id."""
        stored = self._stored.get(turn.previous_id or "")
        if stored is not None:
            stored.state = "continued"
        body = turn.body
        self._stored[message_id] = _Stored(
            workspace=caller.workspace,
            fingerprint=turn.fingerprint,
            kept={name: body[name] for name in _CREATE_ONLY if name in body},
            messages=[*body["messages"], *([{"role": "assistant", "content": content}] if content else [])],
            used_at=at,
        )

    def drop(self, turn: Turn) -> None:
        """The answer was cut: none of it is held, the response before it can be continued again."""
        stored = self._stored.get(turn.previous_id or "")
        if stored is not None:
            stored.state = "open"

    def _find(self, previous_id: str, workspace: str, at: float) -> _Stored:
        stored = self._stored.get(previous_id)
        if stored is None or stored.workspace != workspace or at - stored.used_at > KEPT_SECONDS:
            raise not_found(
                f"thread.continue.previous_message_id: no usable thread state for `{previous_id}`.",
                error_code="thread_not_found",
            )
        return stored


def _check_continue(body: JsonObject, stored: _Stored, fingerprint: dict[str, str]) -> None:
    if stored.state == "continued":
        raise _refused("thread_already_continued", "This response has already been continued.")
    if stored.state == "in_flight":
        raise _refused("thread_continue_in_flight", "Another request is continuing this response.")
    for name in _CREATE_ONLY:
        if name in body:
            raise invalid(f"{name}: must not be repeated when continuing a thread")
    changed = [name for name, value in fingerprint.items() if stored.fingerprint.get(name) != value]
    if changed:
        names = ", ".join(f"`{name}`" for name in changed)
        raise _refused(
            "thread_fingerprint_mismatch", f"Differs from the value stored with the thread: {names}"
        )


def _fingerprint(body: JsonObject, caller: Caller) -> dict[str, str]:
    """What must stay the same across a thread's turns; of betas the set, not the order."""
    fixed = {name: json.dumps(body.get(name), sort_keys=True) for name in _FIXED}
    return {**fixed, "anthropic-beta": ",".join(sorted(set(caller.betas)))}


def _refused(code: str, message: str) -> ApiError:
    return invalid(message, error_code=code)
