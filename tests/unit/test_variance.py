"""A difference is split so that its parts sum to it exactly, and each cause shows in its own part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ledger import SUMMED, Total
from gateway.core.variance import add_up_variances, variances

_totals = st.lists(
    st.builds(
        lambda name, model, values: Total(group=(name, model), **dict(zip(SUMMED, values, strict=True))),
        st.sampled_from(["search", "chat"]),
        st.sampled_from(["opus", "haiku"]),
        st.lists(st.one_of(st.just(0), st.integers(0, 2**50)), min_size=len(SUMMED), max_size=len(SUMMED)),
    ),
    max_size=6,
)


@given(_totals, _totals)
def test_the_parts_sum_to_the_difference_to_the_nano_dollar(before: list[Total], after: list[Total]) -> None:
    found = variances(before, after)
    whole = add_up_variances(found, "all")

    for one in (*found, whole):
        assert sum(one.parts) == one.difference_nanousd
    assert whole.before_nanousd == sum(total.cost_nanousd for total in before)
    assert whole.after_nanousd == sum(total.cost_nanousd for total in after)


def a_total(
    uncached: int = 0, read: int = 0, output: int = 0, *, model: str = "opus", price: int = 10
) -> Total:
    """At `price` per uncached token, a tenth of it per token read, and five times it per token of output."""
    return Total(
        group=("search", model),
        uncached_input_tokens=uncached,
        cache_read_tokens=read,
        output_tokens=output,
        uncached_input_nanousd=uncached * price,
        cache_read_nanousd=read * price // 10,
        output_nanousd=output * price * 5,
    )


def parts(before: Total | None, after: Total | None) -> tuple[int, ...]:
    (one,) = variances([before] if before else [], [after] if after else [])
    return one.parts


def test_twice_the_same_is_volume() -> None:
    assert parts(a_total(100, 100, 10), a_total(200, 200, 20)) == (1_600, 0, 0, 0)


def test_another_model_in_the_same_amount_is_mix() -> None:
    before = [a_total(100), a_total(100, model="haiku", price=1)]
    after = [a_total(150), a_total(50, model="haiku", price=1)]
    (one,) = variances(before, after)

    assert one.parts == (0, 450, 0, 0)  # 50 tokens at 10 and no more at 1


def test_more_output_beside_the_prompt_is_mix() -> None:
    assert parts(a_total(100, 0, 100), a_total(50, 0, 150)) == (0, 2_000, 0, 0)


def test_less_read_from_the_cache_is_cache() -> None:
    assert parts(a_total(20, 80), a_total(70, 30)) == (0, 0, 450, 0)  # 50 tokens at 10 where they were at 1


def test_dearer_tokens_are_price() -> None:
    assert parts(a_total(100, 100, 10), a_total(100, 100, 10, price=20)) == (0, 0, 0, 1_600)


def test_all_at_once_by_hand() -> None:
    # Before: 100 uncached at 10 and 100 read at 1 cost 1100: 5.5 a token. After: 300 uncached at 20 and
    # 100 read at 2 cost 6200. E1 = 1100 * 2 = 2200; E2 = 400 * 5.5 = 2200; E3 = 300 * 10 + 100 = 3100.
    assert parts(a_total(100, 100), a_total(300, 100, price=20)) == (1_100, 0, 900, 3_100)


def test_what_was_not_there_is_taken_at_the_price_of_now() -> None:
    assert parts(None, a_total(100)) == (1_000, 0, 0, 0)
    assert parts(a_total(100), None) == (-1_000, 0, 0, 0)
    (new_model,) = variances([a_total(100)], [a_total(100, model="haiku", price=1)])
    assert new_model.parts == (0, -900, 0, 0)
    assert parts(a_total(100), a_total(50, 50)) == (0, 0, -450, 0)


def test_web_searches_have_a_volume_and_a_price() -> None:
    before = Total(group=("search", "opus"), web_search_requests=10, server_tools_nanousd=100)
    after = Total(group=("search", "opus"), web_search_requests=20, server_tools_nanousd=300)

    assert parts(before, after) == (100, 0, 0, 100)


def test_the_sentence_names_the_greatest_causes() -> None:
    usd = 10**9
    before, after = a_total(usd, usd), a_total(3 * usd, usd, price=20)
    (one,) = variances([before], [after])
    assert one.sentence == (
        "search cost $51.00 more ($11.00 to $62.00): $31.00 more by price (higher prices), "
        "$11.00 more by volume (more tokens), and the rest."
    )
    (same,) = variances([before], [before])
    assert same.sentence == "search cost as much as before ($11.00 to $11.00)."
    (new,) = variances([], [before])
    assert new.sentence.endswith("it cost nothing before.")
