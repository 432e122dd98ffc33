from __future__ import annotations

from gateway.core.planner.index import NEAR, NOT_LOOKED_AT, WINDOW, PrefixTable, table_bytes


def test_finds_what_was_added_and_nothing_else() -> None:
    table = PrefixTable(64)
    slots = {key: table.add(key, 1.0) for key in range(1, 30)}

    assert {key: table.find(key) for key in slots} == slots
    assert table.find(999) == -1


def test_full_window_gives_up_what_was_accessed_longest_ago() -> None:
    table = PrefixTable(64)
    same_window = [1 + 64 * number for number in range(WINDOW + 1)]
    for age, key in enumerate(same_window[:WINDOW]):
        table.add(key, 100.0 - age)

    table.add(same_window[WINDOW], 200.0)

    assert table.find(same_window[WINDOW - 1]) == -1
    assert all(table.find(key) >= 0 for key in same_window if key != same_window[WINDOW - 1])


def test_slot_that_changes_hands_keeps_nothing_of_its_former_prefix() -> None:
    table = PrefixTable(16)
    for number in range(200):
        slot = table.add(1 + number, float(number))
        assert (table.flags[slot], table.expires[slot]) == (0, 0.0)
        table.flags[slot], table.expires[slot] = 255, 9e9


def test_path_ends_at_the_deepest_known_prefix() -> None:
    table = PrefixTable(64)
    for key in (1, 2, 3):
        table.add(key, 1.0)

    path = table.find_path([1, 2, 3, 4, 5], head=0)

    assert path == [table.find(1), table.find(2), table.find(3)]


def test_long_path_looks_at_its_head_and_its_end_only() -> None:
    table = PrefixTable(1 << 12)
    keys = list(range(1, 301))
    for key in keys:
        table.add(key, 1.0)

    path = table.find_path(keys, head=3)

    assert len(path) == 300
    assert [block for block, slot in enumerate(path) if slot >= 0] == [0, 1, 2, *range(299 - NEAR, 300)]


def test_a_million_prefixes_fit_the_stated_memory() -> None:
    table = PrefixTable(1_000_000)
    taken = sum(len(column) * column.itemsize for column in (table.keys, table.last, table.expires))
    taken += len(table.flags) + len(table.accesses)

    assert taken == table_bytes(1_000_000)
    assert taken < 60e6


def test_many_are_added_as_one_by_one() -> None:
    one, many = PrefixTable(64), PrefixTable(64)
    keys = [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(1, 200)]
    for at in range(0, len(keys), 20):
        batch = [*keys[at : at + 20], keys[min(at + 19, len(keys) - 1)]]
        assert many.add_new(batch, float(at)) == [one.add(key, float(at)) for key in batch]

    assert (one.keys, one.last, one.used) == (many.keys, many.last, many.used)


def test_named_blocks_are_looked_at_only_where_the_last_is_the_deepest_known() -> None:
    table = PrefixTable(64)
    for key in (1, 2, 3):
        table.add(key, 1.0)
    found = table.find_known([1, 2, 3, 4], (0, 2))

    assert found == [table.find(1), NOT_LOOKED_AT, table.find(3)]
    assert table.find_known([1, 2, 3, 4], (0, 1)) == []
    assert table.find_known([1, 2, 3, 4], (0, 3)) == []


def test_what_was_not_looked_at_is_not_taken_in_again() -> None:
    table = PrefixTable(64)
    slots = [table.add(1, 1.0), NOT_LOOKED_AT, -1, table.add(4, 1.0)]
    table.remember([1, 2, 3, 4, 5], slots, 2.0)

    assert slots == [table.find(1), NOT_LOOKED_AT, table.find(3), table.find(4), table.find(5)]
    assert table.find(2) == -1
