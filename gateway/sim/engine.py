"""One Messages request from accepted body to charged answer, without HTTP.

The single place that ties validation, threads, cache, answer and bill together; plain calls, streams and
batch items all run through it. How answers travel is `messages.py` and `stream.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gateway.sim.answers import Answer, Script, compose
from gateway.sim.bill import Bill, BillLine, is_billed
from gateway.sim.cache import CacheScope, Outcome, PromptCache
from gateway.sim.catalogue import ModelRow
from gateway.sim.marks import set_marks
from gateway.sim.prompt import Rendered, read_blocks, render
from gateway.sim.threads import Threads, Turn
from gateway.sim.validate import Caller, check_count_call, check_message_call
from gateway.sim.wire import JsonObject, invalid


@dataclass(slots=True, kw_only=True)
class Run:
    """One accepted request: what it reads and writes is decided, nothing has been sent yet."""

    caller: Caller
    request_id: str
    message_id: str
    model: ModelRow
    started_at: float
    outcome: Outcome
    answer: Answer
    service_tier: str
    inference_geo: str | None
    speed: str
    turn: Turn | None
    begun: bool = False

    def usage(self, output_tokens: int | None = None) -> JsonObject:
        """The usage object, as on the wire; with fewer `output_tokens` for an answer cut short."""
        out = self.answer.output_tokens if output_tokens is None else output_tokens
        usage: JsonObject = {
            "input_tokens": self.outcome.uncached_tokens,
            "cache_creation_input_tokens": self.outcome.write_5m_tokens + self.outcome.write_1h_tokens,
            "cache_read_input_tokens": self.outcome.read_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.outcome.write_5m_tokens,
                "ephemeral_1h_input_tokens": self.outcome.write_1h_tokens,
            },
            "output_tokens": out,
            "output_tokens_details": {"thinking_tokens": min(self.answer.thinking_tokens, out)},
            "server_tool_use": None,
            "service_tier": self.service_tier,
            "inference_geo": self.inference_geo,
            "speed": self.speed,
        }
        scripted = dict(self.answer.usage)
        if output_tokens is not None:
            scripted.pop("output_tokens", None)
        return usage | scripted

    def message(self) -> JsonObject:
        """The whole Message (SDK 2.12 `Message`; `diagnostics` always present since 2026-09-23)."""
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model.id,
            "content": self.answer.content,
            "stop_reason": self.answer.stop_reason,
            "stop_sequence": self.answer.stop_sequence,
            "stop_details": self.answer.stop_details,
            "usage": self.usage(),
            "container": None,
            "diagnostics": None,
        }


class Engine:
    """State of the simulated API behind Messages: cache, threads, bill, scripted answers."""

    def __init__(self, *, seed: int, script: Script) -> None:
        self.cache = PromptCache()
        self.threads = Threads()
        self.bill = Bill()
        self.script = script
        self._seed = seed
        self._accepted = 0

    def accept(
        self, body: JsonObject, caller: Caller, *, request_id: str, at: float, in_batch: bool = False
    ) -> Run:
        """Check a request, look up the cache and compose the answer. Raises ApiError for what the API
        refuses; then nothing has changed. Entries found are refreshed from `at` on."""
        model = check_message_call(body, caller, in_batch=in_batch)
        turn = self.threads.open_turn(body, caller, at)
        full = body if turn is None else turn.body
        rendered = _rendered(full, caller, model)
        if rendered.total_tokens > model.context_tokens:
            raise invalid(
                f"prompt is too long: {rendered.total_tokens} tokens > {model.context_tokens} maximum"
            )
        speed = "fast" if body.get("speed") == "fast" and model.fast != "ignored" else "standard"
        outcome = self.cache.open(
            CacheScope(workspace=caller.workspace, model=model.id, speed=speed),
            rendered.positions,
            total_tokens=rendered.total_tokens,
            minimum_tokens=model.minimum_cacheable_tokens,
            at=at,
        )
        scripted = self.script.take(full, "/v1/messages")
        if turn is not None:
            self.threads.begin(turn)
        return Run(
            caller=caller,
            request_id=request_id,
            message_id=self._next_id(request_id),
            model=model,
            started_at=at,
            outcome=outcome,
            answer=compose(full, model, seed=b"%d " % self._seed + rendered.key, scripted=scripted),
            service_tier="batch" if in_batch else "standard",
            inference_geo=(body.get("inference_geo") or "global") if model.inference_geo else "not_available",
            speed=speed,
            turn=turn,
        )

    def count(self, body: JsonObject, caller: Caller) -> int:
        """Tokens of a `count_tokens` call. Free; runs the same checks on breakpoints, ignores caching."""
        model = check_count_call(body, caller)
        return _rendered(body, caller, model).total_tokens

    def begin(self, run: Run) -> None:
        """The first byte of the response goes out: what the request wrote can be read from now on."""
        if not run.begun:
            run.begun = True
            self.cache.publish(run.outcome)

    def finish(self, run: Run, *, at: float, output_tokens: int | None = None) -> BillLine:
        """Charge the request. `output_tokens` is what had been generated when the answer was cut, None for
        a complete one. Call once."""
        complete = output_tokens is None
        if run.turn is not None:
            if complete:
                self.threads.finish(run.turn, run.caller, run.message_id, run.answer.content, at)
            else:
                self.threads.drop(run.turn)
        answer = run.answer
        return self.bill.charge(
            at=run.started_at,
            workspace=run.caller.workspace,
            model=run.model.id,
            request_id=run.request_id,
            message_id=run.message_id,
            usage=run.usage(output_tokens),
            billed=is_billed(answer.stop_reason, answer.stop_details, answer.content, at),
            complete=complete,
        )

    def _next_id(self, request_id: str) -> str:
        self._accepted += 1
        digest = hashlib.blake2b(f"{self._seed} {self._accepted} {request_id}".encode(), digest_size=12)
        return f"msg_{digest.hexdigest()}"


def _rendered(body: JsonObject, caller: Caller, model: ModelRow) -> Rendered:
    blocks = read_blocks(body, model)
    set_marks(blocks, body.get("cache_control"), caller.betas)
    return render(blocks, body, model, caller.betas)
