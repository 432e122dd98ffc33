"""What an ended warm-up came to, in a value and a sentence, and as the book enters it. No IO."""

from __future__ import annotations

from dataclasses import dataclass, replace

from msgspec import structs

from gateway.core.api_facts import TTL_SECONDS
from gateway.core.errors import BudgetExhausted, Draining, GatewayError, Overloaded, Refusal, StoreUnavailable
from gateway.core.exchange import Basis
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.pricing import PriceTable
from gateway.core.rules import Rules
from gateway.core.usage import Usage
from gateway.core.warming_book import WarmedNow
from gateway.core.warmup import WarmCause, WarmOutcome, WarmState
from gateway.workers.own_call import Done
from gateway.workers.warm_pace import LONGEST_SECONDS, pause_after
from gateway.workers.warm_shapes import Shaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    """What a warm-up came to, with the usage that upstream reported for one that was served."""

    outcome: WarmOutcome
    usage: Usage | None = None
    sent_at: float = 0.0


def result_of(shaped: Shaped, done: Done) -> Warmed:
    """Of a warm-up that was handed to the pipeline. An answer without content is what it is to have."""
    record, answer = done.record, done.answer
    cost = record.cost.total_nanousd if record is not None and record.cost is not None else 0
    told = WarmOutcome(
        state=WarmState.FAILED,
        reason="Upstream's answer could not be read for what was cached.",
        cost_nanousd=cost,
        exchange_id=done.call_id,
        model=shaped.prompt.model,
    )
    if done.error is not None:
        state, reason = _why_it_failed(done.error)
        return Warmed(outcome=replace(told, state=state, reason=reason))
    if not 200 <= answer.status < 300:
        return Warmed(outcome=_rejected(done, told))
    if record is None or record.usage is None or record.basis is not Basis.REPORTED:
        return Warmed(outcome=told)
    read = record.usage.cache_read_tokens
    written = record.usage.cache_write_5m_tokens + record.usage.cache_write_1h_tokens
    state, reason = _what_it_did(shaped.cause, read, written)
    told = replace(told, state=state, reason=reason, read_tokens=read, written_tokens=written)
    return Warmed(outcome=told, usage=record.usage if read + written else None, sent_at=done.sent_at)


def book_entry(shaped: Shaped, warmed: Warmed, rules: Rules) -> WarmedNow:
    """Of a warm-up that was served."""
    usage, outcome, model = warmed.usage, warmed.outcome, shaped.prompt.model
    assert usage is not None
    scope = cache_scope(
        secret=rules.prefix_secret,
        workspace=shaped.workspace.id,
        prompt=shaped.prompt,
        headers=shaped.headers,
    )
    ttl_seconds = float(TTL_SECONDS.value[shaped.marks[-1].ttl])
    if shaped.cause is WarmCause.KEEP_ALIVE:
        lives_seconds = shaped.lives_seconds
    else:  # what was there already may have had a whole lifetime before it
        lives_seconds = 0.0 if outcome.written_tokens else ttl_seconds
    tokens = outcome.read_tokens + outcome.written_tokens
    return WarmedNow(
        key=prefix_keys(shaped.prompt, scope)[shaped.upto],
        workspace=shaped.workspace.id,
        model=model,
        cause=shaped.cause,
        name=shaped.name,
        tokens=tokens,
        at=warmed.sent_at,
        ttl_seconds=ttl_seconds,
        lived_until=warmed.sent_at + lives_seconds,
        cost_nanousd=outcome.cost_nanousd,
        saved_by_read_nanousd=_saved_by_read(rules.prices, usage, tokens, model, warmed.sent_at),
    )


def _rejected(done: Done, told: WarmOutcome) -> WarmOutcome:
    answer = done.answer
    pause = pause_after(answer.status, answer.headers, bytes(answer.body))
    kind = done.record.upstream_error_type if done.record is not None else None
    reason = f"Upstream refused it: {answer.status} {kind or 'without an error type'}."
    if pause == LONGEST_SECONDS:
        reason += " Its spend cap is reached, so warm-ups pause for an hour at a time."
    ours = answer.status < 500 or answer.status == 529
    state = WarmState.REFUSED if ours else WarmState.FAILED
    return replace(told, state=state, reason=reason, retry_after_seconds=pause)


def _why_it_failed(error: GatewayError) -> tuple[WarmState, str]:
    if isinstance(error, BudgetExhausted):
        return WarmState.OVER_BUDGET, error.message
    if isinstance(error, Draining | Overloaded):
        return WarmState.SKIPPED, "This replica of the gateway takes no more work."
    if isinstance(error, StoreUnavailable):
        return WarmState.SKIPPED, "The budget for warm-ups could not be asked, so it was not sent."
    if isinstance(error, Refusal):
        return WarmState.REFUSED, error.message
    return WarmState.FAILED, f"Upstream gave no answer ({error.code})."


def _what_it_did(cause: WarmCause, read: int, written: int) -> tuple[WarmState, str]:
    if not read + written:
        return WarmState.FAILED, "Upstream cached nothing of it: it is shorter than the model's minimum."
    if cause is WarmCause.KEEP_ALIVE:
        if written:
            return WarmState.WARMED, f"It had gone, and {written:,} tokens were written again."
        return WarmState.WARMED, f"{read:,} tokens stay cached for another lifetime."
    if not written:
        return (
            WarmState.ALREADY_WARM,
            f"All {read:,} tokens were cached, and stay so for a lifetime from now.",
        )
    return WarmState.WARMED, f"{written:,} tokens were written and {read:,} were cached."


def _saved_by_read(prices: PriceTable, usage: Usage, tokens: int, model: str, at: float) -> int:
    """What a read of so many tokens costs less than writing them for 5 minutes."""
    bare = structs.replace(
        usage,
        uncached_input_tokens=0,
        cache_read_tokens=0,
        cache_write_5m_tokens=0,
        cache_write_1h_tokens=0,
        output_tokens=0,
        iterations=(),
    )
    written = prices.cost(structs.replace(bare, cache_write_5m_tokens=tokens), model=model, at=at)
    read = prices.cost(structs.replace(bare, cache_read_tokens=tokens), model=model, at=at)
    return max(0, written.total_nanousd - read.total_nanousd)
