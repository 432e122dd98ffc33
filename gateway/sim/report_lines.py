"""What the reports are made of: the bill's lines, by model and kind, with edits that tests ask for.

The bill itself stays honest; edits are on what the reports say of it. Days, pages and shapes on the wire are
`reports.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from gateway.sim.bill import WEB_SEARCH_NANOUSD, BillLine, token_counts, token_nanousd
from gateway.sim.wire import JsonObject, invalid

if TYPE_CHECKING:
    from gateway.sim.world import World

LONG_CONTEXT_TOKENS: Final = 200_000


@dataclass(slots=True)
class Reports:
    """How the reports differ from the bill, and how late they are. Changed by tests only."""

    delay_seconds: float = 0.0
    """What was billed less than this long ago is not in them yet; usually 5 minutes (usage and cost API page,
    2026-08-21)."""
    cent_decimals: int | None = None
    """Amounts are rounded to so many decimals of a cent; None writes them exactly."""
    dropped: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    moved: dict[str, float] = field(default_factory=dict)
    """Message id to the instant that the reports count it at."""
    factors: dict[tuple[str, str], Fraction] = field(default_factory=dict)
    """By model and token type: what the price in the reports is, against that of the bill."""
    foreign: list[BillLine] = field(default_factory=list)
    """Lines that nobody sent through this simulator."""

    def clear(self) -> None:
        """As the bill says, at once."""
        self.__init__()  # type: ignore[misc]

    def lines(self, world: World) -> Iterator[BillLine]:
        """All that is known by now."""
        known_until = world.clock.now() - self.delay_seconds
        for line in (*world.engine.bill.lines, *self.foreign):
            if line.message_id in self.dropped or line.at > known_until:
                continue
            told = replace(line, at=self.moved.get(line.message_id, line.at))
            yield from [told] * (1 + (line.message_id in self.doubled))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One model's share of a line. `group` has a value for each dimension that can be grouped by."""

    at: float
    group: dict[str, str | None]
    tokens: dict[str, int]
    nanousd: dict[str, Fraction]
    """By token type, and `web_search`."""
    searches: int
    requests: int


def parts(world: World) -> Iterator[Part]:
    """Every line of the reports, iteration by iteration."""
    reports, keys = world.reports, _Keys(world)
    for line in reports.lines(world):
        usage = line.usage
        searches = (usage.get("server_tool_use") or {}).get("web_search_requests") or 0
        for index, entry in enumerate(usage.get("iterations") or [usage]):
            model = entry.get("model") or line.model
            tokens = token_counts(entry)
            costs = _costs(reports, line, model, entry)
            first = index == 0
            costs["web_search"] = Fraction(searches * WEB_SEARCH_NANOUSD) if first else Fraction(0)
            yield Part(
                at=line.at,
                group=_group(line, model, tokens, keys.of(line)),
                tokens=tokens,
                nanousd=costs,
                searches=searches if first else 0,
                requests=int(first),
            )


def _costs(reports: Reports, line: BillLine, model: str, entry: JsonObject) -> dict[str, Fraction]:
    """Nothing for what the bill lets off, as refusals; tokens are shown all the same."""
    exact = token_nanousd(model, entry, line.usage, line.at)
    if line.cost_nanousd == 0:
        return dict.fromkeys(exact, Fraction(0))
    return {kind: cost * reports.factors.get((model, kind), 1) for kind, cost in exact.items()}


def _group(
    line: BillLine, model: str, tokens: dict[str, int], api_key_id: str | None
) -> dict[str, str | None]:
    usage = line.usage
    prompt_tokens = sum(tokens.values()) - tokens["output_tokens"]
    return {
        "workspace_id": line.workspace,
        "api_key_id": api_key_id,
        "model": model,
        "service_tier": usage.get("service_tier") or "standard",
        "context_window": "0-200k" if prompt_tokens <= LONG_CONTEXT_TOKENS else "200k-1M",
        "inference_geo": usage.get("inference_geo") or "not_available",
        "speed": usage.get("speed") or "standard",
    }


class _Keys:
    """Which key authenticated a line: by its request; items of a batch by their workspace."""

    def __init__(self, world: World) -> None:
        self._by_request: dict[str, str] = {}
        self._by_workspace: dict[str, str] = {}
        for received in world.records.items:
            key = world.credentials.key_id(
                authorization=received.header("authorization"), api_key=received.header("x-api-key")
            )
            self._by_request[received.request_id] = key
            if received.workspace is not None:
                self._by_workspace[received.workspace] = key

    def of(self, line: BillLine) -> str | None:
        return self._by_request.get(line.request_id) or self._by_workspace.get(line.workspace)


def edit(world: World, value: JsonObject) -> None:
    """One edit, as `POST /_sim/reports` takes it; `message_id` is the last line's where it is not said."""
    reports = world.reports
    lines = world.engine.bill.lines
    message_id = value.get("message_id") or (lines[-1].message_id if lines else "")
    match value.get("do"):
        case "drop":
            reports.dropped.add(message_id)
        case "double":
            reports.doubled.add(message_id)
        case "move":
            reports.moved[message_id] = float(value["at"])
        case "price":
            reports.factors[value["model"], value["token_type"]] = Fraction(str(value["factor"]))
        case "foreign":
            reports.foreign.append(_foreign(world, value))
        case "delay":
            reports.delay_seconds = float(value["seconds"])
        case "round":
            reports.cent_decimals = int(value["decimals"])
        case other:
            raise invalid(f"do: no such edit: {other!r}")


def _foreign(world: World, value: JsonObject) -> BillLine:
    """Usage of the given workspace and model that went to the provider by another way."""
    number = len(world.reports.foreign)
    usage: JsonObject = {"input_tokens": 0, "output_tokens": 0} | value.get("usage", {})
    return BillLine(
        at=float(value.get("at", world.clock.now())),
        workspace=value["workspace"],
        model=value["model"],
        request_id=f"req_foreign{number}",
        message_id=f"msg_foreign{number}",
        usage=usage,
        cost_nanousd=1,  # charged; how much is worked out again
        complete=True,
    )
