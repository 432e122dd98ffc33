"""The gateway with an observer that does nothing, for the bench: the product has no such switch.

python -m tests.bench.without PART[,PART ...] CONFIG_DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.adapters.access_log import AccessLog
from gateway.adapters.ledger import Ledger
from gateway.adapters.prometheus import Metrics
from gateway.cli.run import run
from gateway.core.exchange import ExchangeRecord

OBSERVERS = {"log": AccessLog, "ledger": Ledger, "metrics": Metrics}


def _nothing(self: object, record: ExchangeRecord) -> None:
    return


if __name__ == "__main__":
    for part in filter(None, sys.argv[1].split(",")):
        OBSERVERS[part].observe = _nothing  # type: ignore[attr-defined]
    run(Path(sys.argv[2]))
