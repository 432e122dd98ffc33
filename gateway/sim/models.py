"""`GET /v1/models`: the catalogue as the API shows it (SDK 2.12 `ModelInfo`). No prices, no minimums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.sim.catalogue import CATALOGUE, ModelRow, find_model
from gateway.sim.wire import JsonObject, invalid, not_found

_EFFORTS: Final = ("low", "medium", "high", "max", "xhigh")


def list_models(
    limit: str | None, after: str | None, before: str | None, stages: Sequence[str]
) -> JsonObject:
    """One page, newest first. Retired models only when asked for; none are in the catalogue."""
    wanted = set(stages) or {"active", "deprecated"}
    rows = [model_info(row) for row in CATALOGUE]
    return page([row for row in rows if row["lifecycle"] in wanted], limit, after, before)


def get_model(model_id: str) -> JsonObject:
    row = find_model(model_id)
    if row is None:
        raise not_found(f"model: {model_id}")
    return model_info(row)


def page(items: Sequence[JsonObject], limit: str | None, after: str | None, before: str | None) -> JsonObject:
    """A page of a list in the API's `has_more` form; `after` and `before` are ids."""
    size = read_limit(limit)
    ids = [item["id"] for item in items]
    if after is not None:
        start = ids.index(after) + 1 if after in ids else len(ids)
        part, more = items[start : start + size], start + size < len(items)
    elif before is not None:
        end = ids.index(before) if before in ids else 0
        part, more = items[max(0, end - size) : end], end - size > 0
    else:
        part, more = items[:size], size < len(items)
    return {
        "data": list(part),
        "has_more": more,
        "first_id": part[0]["id"] if part else None,
        "last_id": part[-1]["id"] if part else None,
    }


def read_limit(value: str | None) -> int:
    """1 to 1000, 20 unless given."""
    if value is None:
        return 20
    if not value.isdigit() or not 1 <= int(value) <= 1000:
        raise invalid("limit: Input should be greater than or equal to 1 and less than or equal to 1000")
    return int(value)


def model_info(row: ModelRow) -> JsonObject:
    return {
        "type": "model",
        "id": row.id,
        "display_name": row.name,
        "created_at": f"{row.launched}T00:00:00Z",
        "lifecycle": "deprecated" if row.retires else "active",
        "deprecated_at": f"{row.launched}T00:00:00Z" if row.retires else None,
        "retires_at": f"{row.retires}T00:00:00Z" if row.retires else None,
        "line": row.line,
        "max_input_tokens": row.context_tokens,
        "max_tokens": row.max_output_tokens,
        "capabilities": _capabilities(row),
    }


def _capabilities(row: ModelRow) -> JsonObject:
    new = row.new_tokenizer
    kinds = ("adaptive", "between_tools", "disabled", "enabled")
    return {
        "batch": _yes(True),
        "citations": _yes(True),
        "code_execution": _yes(True),
        "context_management": {
            "supported": True,
            "clear_thinking_20251015": _yes(True),
            "clear_tool_uses_20250919": _yes(True),
            "compact_20260112": _yes(new),
        },
        "effort": {"supported": True, **{effort: _yes(new or effort != "xhigh") for effort in _EFFORTS}},
        "image_input": _yes(True),
        "pdf_input": _yes(True),
        "server_tools": {"supported": True, "code_execution": _yes(True), "web_search": _yes(True)},
        "structured_outputs": _yes(True),
        "thinking": {"supported": True, "types": {kind: _yes(kind in row.thinking) for kind in kinds}},
    }


def _yes(supported: bool) -> JsonObject:
    return {"supported": supported}
