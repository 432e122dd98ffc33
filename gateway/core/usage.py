"""What a request used, as upstream reported it: the `Usage` value and its reading from the wire.

This is the only file that knows the API's names of usage fields. Mind that the API's `input_tokens` is
the part that was neither read from a cache nor written to one; here it is `uncached_input_tokens`.
Prices live in `pricing.py`, the framing of streams in `sse.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and counted extras of one request, or of one iteration of a server-side loop.

    `iterations` is empty unless upstream reported any; then the bill is the sum over all of them, each by
    its own `model`, and the fields above them are only upstream's own totals (which leave some out).
    """

    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    web_search_requests: int = 0
    web_fetch_requests: int = 0
    code_execution_requests: int = 0
    model: str | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    iterations: tuple[Usage, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """The size of the prompt: everything that went in, however it was billed."""
        return (
            self.uncached_input_tokens
            + self.cache_read_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that the gateway reads of an answer's body, besides relaying it.

    `complete` is True when a stream reached `message_stop`, or a plain body was read to its end.
    `error_type` is the API's error type of an error body or of an `error` event in a stream.
    """

    usage: Usage | None = None
    message_id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    refusal_category: str | None = None
    error_type: str | None = None
    complete: bool = False
    output_text_bytes: int = 0
    """Bytes of generated text seen in deltas: the floor for settling a stream that was cut."""
    parse_errors: int = 0
