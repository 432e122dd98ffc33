"""A stand-in for the Claude API, written from its documented rules: `gateway simulate`.

It is the other witness of the tests: what it says about hits, tokens and costs is worked out here from
the API's documentation, never with the gateway's own placement, prefix or pricing code. See README.md for
each rule, its source, and what is left out. Production code never imports this package.
"""

from gateway.sim.answers import Scripted
from gateway.sim.faults import Fault, FaultKind, Match
from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator, run_simulator

__all__ = ["Fault", "FaultKind", "Match", "Pacing", "Scripted", "Simulator", "run_simulator"]
