"""The usage and cost reports, of both generations, from the simulator's own bill.

Sources: usage and cost API page and its reference (2026-08-21) for `usage_report/messages` and `cost_report`;
SDK 2.12 `resources/beta/organization/analytics` for `analytics/usage` and `analytics/cost`. Filters are left
out: nobody here asks for them. `/_sim/reports` makes them wrong on purpose.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

from aiohttp import web

from gateway.sim.control import Endpoint
from gateway.sim.records import Received
from gateway.sim.report_lines import Part, edit, parts
from gateway.sim.validate import read_betas, read_version
from gateway.sim.wire import JsonObject, dump, invalid, read_object
from gateway.sim.world import World

_DAY: Final = 86_400
_WIDTHS: Final = {"1m": 60, "1h": 3_600, "1d": _DAY}
_BUCKETS: Final = {"1m": (60, 1_440), "1h": (24, 168), "1d": (7, 31)}
"""How many the older reports give unless asked, and at most."""
_OLDER_GROUPS: Final = (
    "account_id", "api_key_id", "context_window", "inference_geo", "model", "service_account_id",
    "service_tier", "speed", "workspace_id",
)  # fmt: skip
_NEWER_GROUPS: Final = (
    "actor", "actor_type", "agent_id", "api_key_id", "claude_tag_category", "claude_tag_user_id",
    "context_window", "deployment_id", "environment_id", "inference_geo", "model", "organization_id",
    "product", "rbac_group_id", "service_tier", "session_id", "slack_channel_id", "speed",
    "user_profile_id", "workspace_id",
)  # fmt: skip
_BETA: Final = "analytics-usage-cost-2026-08-24"
_MAXIMUM_DAYS: Final = 31
_FIRST_INSTANT: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
_NANOUSD_PER_CENT: Final = 10_000_000


async def _usage_report(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    """`GET /v1/organizations/usage_report/messages`: a page of buckets, empty ones among them."""
    betas = _admin(world, received)
    groups = _groups(request, _OLDER_GROUPS)
    if "speed" in groups and "fast-mode-2026-02-01" not in betas:
        raise invalid("group_by: speed requires the fast-mode-2026-02-01 beta")

    def results(inside: Sequence[Part]) -> list[JsonObject]:
        return [
            dict.fromkeys(_OLDER_GROUPS) | group | _usage(members)
            for group, members in _grouped(inside, groups)
        ]

    return _json(_bucket_page(world, request, request.query.get("bucket_width", "1d"), results))


async def _cost_report(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    """`GET /v1/organizations/cost_report`: by the day only. Not grouped by `description`, one amount for each
    workspace."""
    _admin(world, received)
    groups = _groups(request, ("description", "workspace_id"))
    if request.query.get("bucket_width", "1d") != "1d":
        raise invalid("bucket_width: Input should be '1d'")
    by = [name for name in groups if name == "workspace_id"]
    if "description" in groups:
        by += ["model", "service_tier", "context_window", "inference_geo"]

    def results(inside: Sequence[Part]) -> list[JsonObject]:
        found = []
        for group, members in _grouped(inside, by):
            costs = _costs(members)
            if "description" not in groups:
                found.append(_older_cost(world, group, None, sum(costs.values(), Fraction(0))))
                continue
            found += [_older_cost(world, group, kind, cost) for kind, cost in costs.items() if cost]
        return found

    return _json(_bucket_page(world, request, "1d", results))


def _older_cost(world: World, group: JsonObject, kind: str | None, cost: Fraction) -> JsonObject:
    of_tokens = kind not in (None, "web_search")
    model = group.get("model") if of_tokens else None
    what = {None: None, "web_search": "Web Search Usage"}.get(kind, f"{model} Usage - {kind}")
    return {
        "currency": "USD",
        "amount": _cents(world, cost),
        "workspace_id": group.get("workspace_id"),
        "description": what,
        "cost_type": None if kind is None else "tokens" if of_tokens else "web_search",
        "context_window": group.get("context_window") if of_tokens else None,
        "inference_geo": group.get("inference_geo") if of_tokens else None,
        "model": model,
        "service_tier": group.get("service_tier") if of_tokens else None,
        "token_type": kind if of_tokens else None,
    }


async def _analytics_usage(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    """`GET /v1/organizations/analytics/usage`: one row per group and bucket that has usage."""
    groups = _analytics_groups(world, request, received, _NEWER_GROUPS)
    rows = [
        bounds | {"group": dict.fromkeys(_NEWER_GROUPS) | group, "usage": _newer_usage(members)}
        for bounds, group, members in _analytics_rows(world, request, groups)
    ]
    return _json(_row_page(world, request, [[row] for row in rows]))


async def _analytics_cost(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    """`GET /v1/organizations/analytics/cost`: the rows of one group by kind count as one row of the page."""
    every = (*_NEWER_GROUPS, "cost_type", "token_type")
    groups = _analytics_groups(world, request, received, every)
    kinds = {"cost_type", "token_type"} & set(groups)
    by = [name for name in groups if name not in kinds]
    rows: list[list[JsonObject]] = []
    for bounds, group, members in _analytics_rows(world, request, by):
        base = dict.fromkeys(every) | group
        rows.append(
            [
                bounds | {"group": base | kind, "cost": _newer_cost(world, cost, members, bool(kinds))}
                for kind, cost in _by_kind(_costs(members), kinds)
            ]
        )
    return _json(_row_page(world, request, rows))


def _by_kind(costs: dict[str, Fraction], kinds: set[str]) -> Iterable[tuple[JsonObject, Fraction]]:
    tokens = {kind: cost for kind, cost in costs.items() if kind != "web_search"}
    total = sum(tokens.values(), Fraction(0))
    if not kinds:
        return [({}, total + costs["web_search"])]
    listed: list[tuple[JsonObject, Fraction]] = [({"cost_type": "tokens", "token_type": None}, total)]
    if "token_type" in kinds:
        listed = [({"cost_type": "tokens", "token_type": kind}, cost) for kind, cost in tokens.items()]
    if "cost_type" in kinds:
        listed.append(({"cost_type": "web_search", "token_type": None}, costs["web_search"]))
    return [(kind, cost) for kind, cost in listed if cost]


def _newer_cost(world: World, cost: Fraction, members: Sequence[Part], by_kind: bool) -> JsonObject:
    return {
        "amount": _cents(world, cost),
        "list_amount": _cents(world, cost),
        "currency": "USD",
        "requests": None if by_kind else sum(part.requests for part in members),
    }


def _newer_usage(members: Sequence[Part]) -> JsonObject:
    usage = _usage(members)
    usage["requests"] = sum(part.requests for part in members)
    usage["total_tokens"] = sum(sum(part.tokens.values()) for part in members)
    return usage


def _analytics_groups(
    world: World, request: web.Request, received: Received, allowed: Sequence[str]
) -> list[str]:
    betas = _admin(world, received)
    if _BETA not in betas:
        raise invalid(f"anthropic-beta: this endpoint requires {_BETA}")
    groups = _groups(request, allowed)
    if len([name for name in groups if name not in ("cost_type", "token_type")]) > 5:
        raise invalid("group_by: List should have at most 5 items")
    return groups


def _analytics_rows(
    world: World, request: web.Request, groups: Sequence[str]
) -> Iterable[tuple[JsonObject, JsonObject, list[Part]]]:
    """Bounds, group and members of each row, oldest first."""
    width = request.query.get("time_bucket_width")
    start = _instant(request, "starting_at")
    end = _instant(request, "ending_at")
    now = world.clock.now()
    if start is None or start < max(_FIRST_INSTANT, now - 365 * _DAY):
        raise invalid("starting_at: must be within the last 365 days and no earlier than 2026-01-01")
    if width is not None and (width not in _WIDTHS or end is None):
        raise invalid("ending_at: required when time_bucket_width is set")
    last = min(now, start + _MAXIMUM_DAYS * _DAY) if end is None else end
    if last - start > (_DAY if width == "1m" else _MAXIMUM_DAYS * _DAY):
        raise invalid("ending_at: the range is too long")
    step = _WIDTHS[width] if width is not None else 0
    buckets: dict[int, list[Part]] = {}
    for part in parts(world):
        if start <= part.at < last:
            buckets.setdefault(int(part.at // step * step) if step else int(start), []).append(part)
    for at in sorted(buckets):
        bounds = {"starting_at": _rfc3339(at), "ending_at": _rfc3339(at + step if step else last)}
        for group, members in _grouped(buckets[at], groups):
            geo = {"inference_geo": None} if group.get("inference_geo") == "not_available" else {}
            yield bounds, group | geo, members


def _row_page(world: World, request: web.Request, rows: Sequence[Sequence[JsonObject]]) -> JsonObject:
    """`rows` in lists that must not be torn apart."""
    limit = _limit(request, 20, 1_000)
    first = int(_token(request) or 0)
    more = first + limit < len(rows)
    return {
        "data": [row for together in rows[first : first + limit] for row in together],
        "has_more": more,
        "next_page": _page_token(str(first + limit)) if more else None,
        "data_refreshed_at": _rfc3339(world.clock.now() - world.reports.delay_seconds),
    }


def _bucket_page(
    world: World, request: web.Request, width: str, results: Callable[[Sequence[Part]], list[JsonObject]]
) -> JsonObject:
    if width not in _WIDTHS:
        raise invalid("bucket_width: Input should be '1m', '1h' or '1d'")
    step = _WIDTHS[width]
    limit = _limit(request, *_BUCKETS[width])
    start = _instant(request, "starting_at")
    if start is None:
        raise invalid("starting_at: Field required")
    end = _instant(request, "ending_at")
    last = int((world.clock.now() // step + 1 if end is None else end // step) * step)
    first = int(_token(request) or start // step * step)
    buckets: dict[int, list[Part]] = {at: [] for at in range(first, last, step)[:limit]}
    for part in parts(world):
        at = int(part.at // step * step)
        if at in buckets:
            buckets[at].append(part)
    following = first + limit * step
    return {
        "data": [
            {"starting_at": _rfc3339(at), "ending_at": _rfc3339(at + step), "results": results(inside)}
            for at, inside in buckets.items()
        ],
        "has_more": following < last,
        "next_page": _page_token(str(following)) if following < last else None,
    }


def _grouped(inside: Sequence[Part], by: Sequence[str]) -> list[tuple[JsonObject, list[Part]]]:
    found: dict[tuple[str | None, ...], list[Part]] = {}
    for part in inside:
        found.setdefault(tuple(part.group.get(name) for name in by), []).append(part)
    return [(dict(zip(by, values, strict=True)), members) for values, members in found.items()]


def _usage(members: Sequence[Part]) -> JsonObject:
    total = {kind: sum(part.tokens[kind] for part in members) for kind in members[0].tokens}
    return {
        "uncached_input_tokens": total["uncached_input_tokens"],
        "cache_read_input_tokens": total["cache_read_input_tokens"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": total["cache_creation.ephemeral_5m_input_tokens"],
            "ephemeral_1h_input_tokens": total["cache_creation.ephemeral_1h_input_tokens"],
        },
        "output_tokens": total["output_tokens"],
        "server_tool_use": {"web_search_requests": sum(part.searches for part in members)},
    }


def _costs(members: Sequence[Part]) -> dict[str, Fraction]:
    return {kind: sum((part.nanousd[kind] for part in members), Fraction(0)) for kind in members[0].nanousd}


def _cents(world: World, nanousd: Fraction) -> str:
    """A decimal string of cents. All rates are decimals, so that sums of them are as well."""
    places = 18 if world.reports.cent_decimals is None else world.reports.cent_decimals
    units = round(nanousd / _NANOUSD_PER_CENT * 10**places)
    text = f"{units // 10**places}.{units % 10**places:0{places}d}" if places else str(units)
    return text.rstrip("0").rstrip(".") if world.reports.cent_decimals is None else text


def _admin(world: World, received: Received) -> tuple[str, ...]:
    """The betas of a request by an Admin key."""
    world.credentials.check_admin(
        authorization=received.header("authorization"), api_key=received.header("x-api-key")
    )
    read_version(received.header("anthropic-version"))
    return read_betas([v.decode("latin-1") for k, v in received.headers if k.lower() == b"anthropic-beta"])


def _groups(request: web.Request, allowed: Sequence[str]) -> list[str]:
    asked = request.query.getall("group_by[]", [])
    for name in asked:
        if name not in allowed:
            raise invalid(f"group_by: Input should be one of {', '.join(allowed)}")
    return asked


def _instant(request: web.Request, name: str) -> float | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"{name}: Input should be a valid datetime") from None
    if at.tzinfo is None:
        raise invalid(f"{name}: Input should have timezone info")
    return at.timestamp()


def _limit(request: web.Request, default: int, maximum: int) -> int:
    text = request.query.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= maximum:
        raise invalid(f"limit: Input should be between 1 and {maximum}")
    return int(text)


def _page_token(place: str) -> str:
    return "page_" + base64.urlsafe_b64encode(place.encode()).decode()


def _token(request: web.Request) -> str | None:
    text = request.query.get("page")
    if text is None:
        return None
    try:
        place = base64.urlsafe_b64decode(text.removeprefix("page_")).decode()
    except ValueError:
        place = ""
    if not place.isdigit():
        raise invalid("page: not a page token")
    return place


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(value: JsonObject) -> web.Response:
    return web.Response(body=dump(value), content_type="application/json")


async def _edit_reports(world: World, _request: web.Request, received: Received) -> web.StreamResponse:
    """Make the reports differ from the bill: `{"do": "drop"}`, `double`, `move` to `at`, `price` of a `model`
    and `token_type` by a `factor`, `foreign` usage of a `workspace` and `model`, `delay`, `round`."""
    try:
        edit(world, read_object(received.body))
    except (KeyError, TypeError, ValueError) as error:
        raise invalid(f"not an edit of the reports: {error!r}") from error
    return _json({})


async def _clear_reports(world: World, _request: web.Request, _received: Received) -> web.StreamResponse:
    world.reports.clear()
    return _json({})


ROUTES: Final[list[tuple[str, str, Endpoint]]] = [
    ("GET", "/v1/organizations/usage_report/messages", _usage_report),
    ("GET", "/v1/organizations/cost_report", _cost_report),
    ("GET", "/v1/organizations/analytics/usage", _analytics_usage),
    ("GET", "/v1/organizations/analytics/cost", _analytics_cost),
    ("POST", "/_sim/reports", _edit_reports),
    ("DELETE", "/_sim/reports", _clear_reports),
]
