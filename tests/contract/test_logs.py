"""The logs: one line each whatever a text holds, nothing but what is on the list, never waiting."""

from __future__ import annotations

import json
import logging
import os
import threading
import time

from gateway.adapters.access_log import MAX_TEXT, AccessLog
from gateway.adapters.batch_writer import BatchWriter
from gateway.adapters.process_log import JsonLines
from gateway.core.exchange import ExchangeRecord, Timings
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.misses import Miss, MissCause
from gateway.core.placement import Placement
from gateway.core.principal import Principal
from gateway.core.savings import Cohort, Savings
from gateway.core.usage import Report
from tests.support.records import a_record

HOSTILE = 'evil\r\n{"status":200}\x1b[31m\x00\x85\u2028\u202e'
HOSTILE_RECORD = a_record(
    upstream_error_type=HOSTILE, model=HOSTILE, upstream_request_id=HOSTILE, method=HOSTILE
)


def _log_lines(records: list[ExchangeRecord], *, human: bool = False) -> list[bytes]:
    read, write = os.pipe()
    try:
        log = AccessLog(write, human=human)
        for record in records:
            log.observe(record)
        assert log.close() == 0
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as stream:
        return stream.read().splitlines()


def test_an_exchange_is_one_line_of_json_whatever_its_texts_hold() -> None:
    (line,) = _log_lines([HOSTILE_RECORD])
    fields = json.loads(line)

    assert all(0x20 <= byte < 0x7F for byte in line)
    assert fields["status"] == 200
    assert fields["model"].startswith("evil\\r\\n")
    (long,) = _log_lines([a_record(model="m" * 100_000)])
    assert len(json.loads(long)["model"]) == MAX_TEXT


def test_a_line_for_people_cannot_act_on_their_terminal() -> None:
    (line,) = _log_lines([HOSTILE_RECORD], human=True)

    assert line.decode().isprintable()
    assert b" 200 messages search evil" in line


def test_trap_71_the_log_holds_what_is_on_its_list_and_nothing_else() -> None:
    canary = "canary-7f3a"
    record = a_record(
        principal=Principal(workspace=WorkspaceId("search"), key_id=KeyId("k1"), key_name=canary),
        tags=(("ticket", canary),),
        placement=Placement(reason=canary),
        report=Report(message_id=canary, stop_reason=canary),
    )
    for human in (False, True):
        (line,) = _log_lines([record], human=human)
        assert canary.encode() not in line

    fields = json.loads(_log_lines([record])[0])
    assert fields["cost_nanousd"] == 10_875_001
    assert fields["at"] == "2026-11-18T11:06:40.250Z"
    assert (fields["workspace"], fields["key_id"], fields["endpoint"]) == ("search", "k1", "messages")


def test_a_line_says_what_caching_did() -> None:
    savings = Savings(
        cohort=Cohort.PLACED, plain_nanousd=2, paid_nanousd=1, miss_cause=MissCause.CHANGED, miss_tokens=7
    )
    miss = Miss(3, MissCause.CHANGED, 7, looks_like="a timestamp", where="system[1]")
    timings = Timings(total_seconds=2.0, held_seconds=0.2506)
    record = a_record(savings=savings, placement=Placement(miss=miss), timings=timings)
    fields = json.loads(_log_lines([record])[0])

    assert (fields["cohort"], fields["miss"], fields["held_ms"]) == ("placed", "changed", 251)
    assert not {"miss", "held_ms"} & json.loads(_log_lines([a_record()])[0]).keys()


def test_a_log_that_nobody_reads_drops_lines_counts_them_and_blocks_nobody() -> None:
    read, write = os.pipe()  # holds 64 kB
    log = AccessLog(write, human=False, limit=100)
    start = time.monotonic()
    for _ in range(3000):
        log.observe(a_record())
    assert log.dropped > 2000
    assert time.monotonic() - start < 5

    lines: list[bytes] = []
    with os.fdopen(read, "rb") as stream:
        reader = threading.Thread(target=lambda: lines.extend(stream))
        reader.start()
        assert log.close(5) == 0
        os.close(write)
        reader.join(5)
    assert len(lines) + log.dropped == 3000
    assert all(json.loads(line) for line in lines)


def test_a_log_whose_reader_went_away_counts_what_is_lost() -> None:
    read, write = os.pipe()
    os.close(read)
    log = AccessLog(write, human=False)
    log.observe(a_record())
    log.close()
    os.close(write)

    assert log.dropped == 1


def test_a_log_record_is_one_line_of_json_whatever_its_message_holds() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        raised = (type(error), error, error.__traceback__)
    record = logging.LogRecord("gateway", logging.ERROR, "x.py", 1, 'failed on "%s"', (HOSTILE,), raised)
    record.created = 1_795_000_000.25
    line = JsonLines().format(record)
    fields = json.loads(line)

    assert line.isascii()
    assert line.isprintable()
    assert fields["message"] == f'failed on "{HOSTILE}"'
    assert fields["level"] == "error"
    assert fields["at"] == "2026-11-18T11:06:40.250Z"
    assert "ValueError" in fields["exception"]


def test_a_writer_keeps_order_and_tries_again_what_failed() -> None:
    written: list[int] = []
    failing = [True, True, False]

    def write(items: list[int]) -> None:
        if failing and failing.pop(0):
            raise OSError("not now")
        written.extend(items)

    writer = BatchWriter(write, name="test", limit=1000, linger_seconds=0.0)
    for n in range(500):
        assert writer.put(n)

    assert writer.close(5) == []
    assert written == list(range(500))
    assert writer.failures == 2
    assert not writer.put(501), "it is closed"


def test_a_writer_that_hangs_does_not_keep_its_owner() -> None:
    hanging = threading.Event()

    def write(items: list[int]) -> None:
        hanging.wait(30)

    writer = BatchWriter(write, name="test", limit=10, linger_seconds=0.0)
    taken = [n for n in range(40) if writer.put(n)]
    start = time.monotonic()
    left = writer.close(0.1)

    assert time.monotonic() - start < 5
    assert left == taken
    assert len(taken) <= 22
    hanging.set()
