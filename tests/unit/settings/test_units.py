from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings.units import (
    read_bytes,
    read_count,
    read_nanousd,
    read_seconds,
    show_bytes,
    show_nanousd,
    show_seconds,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("15m", 900), ("1h", 3600), ("90d", 7_776_000)],
)
def test_reads_durations(text: str, seconds: float) -> None:
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    "wrong", ["30", 30, 30.0, True, None, "", "s", "-1s", "1 s", "1S", "1s2", "١s", "1e3s"]
)
def test_a_duration_without_a_unit_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="30s"):
        read_seconds(wrong)


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("64KiB", 65_536), ("32MiB", 33_554_432), ("1GiB", 1 << 30)]
)
def test_reads_sizes(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("wrong", ["32MB", "32", 32, "1.5MiB", "MiB", None])
def test_a_size_is_in_powers_of_two_and_says_so(wrong: object) -> None:
    with pytest.raises(ValueError, match="32MiB"):
        read_bytes(wrong)


@pytest.mark.parametrize(
    ("text", "nanousd"),
    [
        ("$250.00", 250_000_000_000),
        ("$0.000000001", 1),
        ("$1,000", 1_000_000_000_000),
        ("$9,007,199.254740991", 2**53 - 1),
        ("$0.1", 100_000_000),
    ],
)
def test_reads_dollars_exactly(text: str, nanousd: int) -> None:
    assert read_nanousd(text) == nanousd


@pytest.mark.parametrize("wrong", ["250", 250, 0.1, "$1,00", "$-5", "$", "$1.0000000001", "€5", "$5\n", "$٥"])
def test_dollars_need_their_sign(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"\$250\.00"):
        read_nanousd(wrong)


@pytest.mark.parametrize(
    ("text", "count"), [(0, 0), (600, 600), ("600", 600), ("400k", 400_000), ("2M", 2_000_000)]
)
def test_reads_counts(text: object, count: int) -> None:
    assert read_count(text) == count


@pytest.mark.parametrize("wrong", [True, -1, 1.5, "1.5k", "k", "2m", "", None, "$5"])
def test_counts_are_whole_and_not_negative(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"400k|negative"):
        read_count(wrong)


@given(st.integers(0, 10**15))
def test_dollars_are_shown_as_they_were_read(nanousd: int) -> None:
    assert read_nanousd(show_nanousd(nanousd)) == nanousd


@given(st.integers(0, 10**9))
def test_durations_are_shown_as_they_were_read(milliseconds: int) -> None:
    assert read_seconds(show_seconds(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 10**12))
def test_sizes_are_shown_as_they_were_read(size: int) -> None:
    assert read_bytes(show_bytes(size)) == size
