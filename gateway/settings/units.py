"""How people write amounts: `30s`, `32MiB`, `$250.00`, `40k`; and what the program reads from them.

Each unit is an annotated type that pydantic checks. A bare number is refused where a unit belongs, because
nobody can see whether it is seconds or milliseconds. `show_*` write a value back the shortest exact way.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

NANOUSD_PER_USD = 1_000_000_000

_SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_COUNTS = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
SIZE_PATTERN = r"^[0-9]+(B|KiB|MiB|GiB)$"
DOLLARS_PATTERN = r"^\$([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]{1,9})?$"
COUNT_PATTERN = r"^[0-9]+[kMG]?$"


def read_seconds(value: object) -> float:
    """Seconds of `250ms`, `30s`, `15m`, `1h`, `90d`. Raises `ValueError`."""
    number, unit = _split(value, DURATION_PATTERN, "a duration", "250ms, 30s, 15m, 1h or 90d")
    return float(Decimal(number) * _SECONDS[unit])


def read_bytes(value: object) -> int:
    """Bytes of `512B`, `64KiB`, `32MiB`, `1GiB`. Raises `ValueError`."""
    number, unit = _split(value, SIZE_PATTERN, "a size", "64KiB, 32MiB or 1GiB")
    return int(number) * _BYTES[unit]


def read_nanousd(value: object) -> int:
    """Nano-dollars of `$250.00`, exactly. Raises `ValueError`."""
    if not isinstance(value, str) or not re.fullmatch(DOLLARS_PATTERN, value):
        raise ValueError("not an amount of dollars; write for example $250.00")
    return int(Decimal(value[1:].replace(",", "")) * NANOUSD_PER_USD)


def read_count(value: object) -> int:
    """A whole number, as `400000`, `400k` or `2M`. Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("must not be negative")
        return value
    number, unit = _split(value, COUNT_PATTERN, "a whole number", "600, 400k or 2M")
    return int(number) * _COUNTS[unit]


def show_seconds(seconds: float) -> str:
    exact = Decimal(str(seconds))
    for unit in ("d", "h", "m", "s"):
        if exact and exact % _SECONDS[unit] == 0:
            return f"{exact // _SECONDS[unit]:f}{unit}"
    return f"{exact * 1000:.0f}ms" if exact else "0s"


def show_bytes(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def show_nanousd(nanousd: int) -> str:
    """At least cents, and as many places more as there are."""
    dollars, rest = divmod(nanousd, NANOUSD_PER_USD)
    return f"${dollars}.{f'{rest:09d}'.rstrip('0'):0<2}"


def time_zone(name: str) -> str:
    """The name of a time zone that there is. Raises `ValueError`."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("no such time zone; write an IANA name, for example Europe/Berlin or UTC") from None
    return name


def _split(value: object, pattern: str, what: str, examples: str) -> tuple[str, str]:
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, bool) or not re.fullmatch(pattern, text):
        raise ValueError(f"not {what}; write for example {examples}")
    shape = re.match(r"[\d.]+", text)
    assert shape is not None
    return shape[0], text[shape.end() :]


Seconds = Annotated[
    float,
    BeforeValidator(read_seconds),
    PlainSerializer(show_seconds, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
"""Seconds, written with a unit."""

Bytes = Annotated[
    int,
    BeforeValidator(read_bytes),
    PlainSerializer(show_bytes, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN}),
]
"""Bytes, written with a unit."""

PositiveSeconds = Annotated[Seconds, Field(gt=0)]
PositiveBytes = Annotated[Bytes, Field(gt=0)]

Usd = Annotated[
    int,
    BeforeValidator(read_nanousd),
    PlainSerializer(show_nanousd, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DOLLARS_PATTERN}),
]
"""Nano-dollars, written as `$250.00`."""
