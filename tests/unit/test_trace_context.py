"""W3C Trace Context, read strictly: what is invalid counts as not sent."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.headers import Header
from gateway.core.trace_context import (
    MOST_STATE_BYTES,
    RANDOM,
    SAMPLED,
    Trace,
    begin_trace,
    is_sampled,
    read_parent,
    read_state,
    told_upstream,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def sent(*values: str, state: tuple[str, ...] = ()) -> list[Header]:
    return [
        *((b"traceparent", value.encode("latin-1")) for value in values),
        *((b"tracestate", value.encode("latin-1")) for value in state),
    ]


def begun(headers: list[Header], ratio: float = 1.0, seed: int = 1) -> Trace:
    return begin_trace(
        headers,
        call_id="c",
        target="/v1/messages",
        received_at=1_000.5,
        started=7.0,
        ratio=ratio,
        bits=random.Random(seed).getrandbits,
    )


def test_the_callers_span_is_the_parent() -> None:
    parent = read_parent(sent(GOOD))

    assert parent is not None
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}", parent.flags) == (TRACE, SPAN, SAMPLED)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        GOOD.upper(),
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01 ",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01extra",
        f"00_{TRACE}_{SPAN}_01",
        f"{GOOD},{GOOD}",
        f"00-{TRACE}-{SPAN}-01\n",
        "00-٤bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01".encode().decode("latin-1"),
    ],
)
def test_what_is_invalid_begins_a_new_trace_without_state(value: str) -> None:
    headers = sent(value, state=("a=1",))

    assert read_parent(headers) is None
    trace = begun(headers)
    assert trace.parent_span_id is None
    assert trace.state == b""
    assert f"{trace.trace_id:032x}" != TRACE


def test_two_are_invalid_even_where_they_are_the_same() -> None:
    assert read_parent(sent(GOOD, GOOD)) is None


@pytest.mark.parametrize("version", ["01", "cc", "fe"])
@pytest.mark.parametrize("rest", ["", "-", "-what-the-future-will-be-like"])
def test_later_versions_are_read_as_far_as_this_one_goes(version: str, rest: str) -> None:
    parent = read_parent(sent(f"{version}-{TRACE}-{SPAN}-01{rest}"))

    assert parent is not None
    assert f"{parent.trace_id:032x}" == TRACE


@pytest.mark.parametrize(
    ("flags", "kept"), [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("ff", 3), ("fc", 0)]
)
def test_flags_that_are_not_known_are_not_passed_on(flags: str, kept: int) -> None:
    parent = read_parent(sent(f"00-{TRACE}-{SPAN}-{flags}"))

    assert parent is not None
    assert parent.flags == kept


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        ((), b""),
        (("a=1",), b"a=1"),
        (("a=1,b=2", "c=3"), b"a=1,b=2,c=3"),
        (("a=1 , b=2\t,",), b"a=1,b=2"),
        (("a=1,,b=2",), b"a=1,b=2"),
        (("fw529a3039@dt=FfAAAAE,0a@b=x y",), b"fw529a3039@dt=FfAAAAE,0a@b=x y"),
        (("a=1,a=2",), b""),
        (("a",), b""),
        (("=1",), b""),
        (("A=1",), b""),
        (("a=1=2",), b""),
        (("a=\x00",), b""),
        (("a=",), b""),
        (("a=é",), b""),
        ((f"a={'x' * 257}",), b""),
        ((",".join(f"k{n}=1" for n in range(32)),), ",".join(f"k{n}=1" for n in range(32)).encode()),
        ((",".join(f"k{n}=1" for n in range(33)),), b""),
    ],
)
def test_state_is_kept_in_its_order_or_not_at_all(lines: tuple[str, ...], read: bytes) -> None:
    assert read_state(sent(GOOD, state=lines)) == read


def test_of_too_much_state_long_members_go_first_and_then_the_last() -> None:
    short = [f"k{n}={'x' * 60}" for n in range(9)]
    kept = read_state(sent(GOOD, state=(",".join([f"long={'y' * 200}", *short]),)))

    assert kept == ",".join(short[:8]).encode()
    assert len(kept) <= MOST_STATE_BYTES


@given(
    st.lists(st.tuples(st.sampled_from([b"traceparent", b"tracestate"]), st.binary(max_size=80)), max_size=4)
)
def test_no_header_breaks_it(headers: list[Header]) -> None:
    trace = begun(headers)

    assert trace.trace_id
    assert trace.span_id


def test_a_caller_decides_whether_it_is_sampled() -> None:
    assert begun(sent(GOOD), ratio=0.0).sampled
    assert not begun(sent(f"00-{TRACE}-{SPAN}-00"), ratio=1.0).sampled


def test_what_begins_here_is_sampled_by_the_ratio_and_says_that_its_id_is_random() -> None:
    sampled = [begun([], ratio=0.25, seed=seed).sampled for seed in range(2_000)]

    assert 400 < sum(sampled) < 600  # the seeds are given: this is always the same number
    assert begun([], ratio=1.0).flags == SAMPLED | RANDOM
    assert begun([], ratio=0.0).flags == RANDOM


@pytest.mark.parametrize(
    ("low", "ratio", "sampled"), [(0, 1.0, True), (2**56 - 1, 0.0, False), (2**55, 0.5, True)]
)
def test_the_ratio_is_of_the_ids_last_bits(low: int, ratio: float, sampled: bool) -> None:
    assert is_sampled((0xABC << 56) | low, ratio) == sampled


def test_upstream_is_told_the_ids_of_the_attempt() -> None:
    trace = begun(sent(GOOD, state=("a=1",)))

    assert told_upstream([(b"x", b"y")], trace, 0xAB) == [
        (b"x", b"y"),
        (b"traceparent", f"00-{TRACE}-00000000000000ab-01".encode()),
        (b"tracestate", b"a=1"),
    ]
    assert read_parent(told_upstream([], begun([]), 1)) is not None


def test_an_id_of_zero_is_drawn_again() -> None:
    numbers = iter([0, 5, 0, 0, 9])
    trace = begin_trace(
        [], call_id="", target="", received_at=0.0, started=0.0, ratio=1.0, bits=lambda _: next(numbers)
    )

    assert (trace.trace_id, trace.span_id) == (5, 9)


def test_instants_are_told_by_the_wall() -> None:
    assert begun([]).wall(9.25) == 1_002.75
