"""What the books are told of a batch."""

from __future__ import annotations

from gateway.core.batch import KeptBatch, Settled
from gateway.core.batch_records import batch_records
from gateway.core.batch_shares import Share
from gateway.core.bucket import Amounts
from gateway.core.entry import entry_of
from gateway.core.exchange import Basis
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.usage import Usage


def a_share(model: str, nanousd: int) -> Share:
    usage = Usage(output_tokens=1, service_tier="batch", model=model)
    return Share(model=model, items=3, usage=usage, cost=Cost(output_nanousd=nanousd))


KEPT = KeptBatch(
    id="msgbatch_1",
    exchange_id="gw_1",
    principal=Principal(workspace=WorkspaceId("w"), key_id=KeyId("k"), key_name="n"),
    route="default",
    version_headers=(),
    tags=(("x-team", "a"),),
    created_at=1000.0,
    items=6,
    presumed=(a_share("a", 10),),
    presumed_amounts=Amounts(requests=6, nanousd=10),
    reservation_id="gw_1",
    next_at=0.0,
)
SETTLED = Settled(
    basis=Basis.REPORTED,
    ended_at=4600.0,
    amounts=Amounts(requests=6, nanousd=12),
    shares=(a_share("a", 7), a_share("b", 5)),
    ledger="one",
    at=5000.0,
)


def test_one_entry_for_each_share_under_ids_that_stay() -> None:
    entries = [entry_of(record) for record in batch_records(KEPT, SETTLED)]
    assert [(each.id, each.model, each.output_nanousd) for each in entries] == [
        ("gw_1-0", "a", 7),
        ("gw_1-1", "b", 5),
    ]
    assert {(each.endpoint, each.basis, each.service_tier) for each in entries} == {
        ("batches", "reported", "batch")
    }
    assert {(each.received_at_ms, each.total_seconds) for each in entries} == {(1_000_000, 3600.0)}
    assert {each.tags for each in entries} == {'{"batch_items": "3", "x-team": "a"}'}


def test_what_is_of_the_batch_as_a_whole_is_said_once() -> None:
    first, second = batch_records(KEPT, SETTLED)
    assert (first.estimated_nanousd, first.overrun_nanousd) == (10, 2)
    assert (second.estimated_nanousd, second.overrun_nanousd, second.reservation) == (0, 0, None)
    assert first.reservation is not None
