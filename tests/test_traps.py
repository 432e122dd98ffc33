"""The checklist of what goes wrong between clients and this API, gathered from the API's documentation, and
what guards each of it here.

A trap is guarded by tests whose names carry its number, as `test_trap_04_...`, wherever they live. One that
has no such test says why. Building what a reason says is missing means writing `TESTED` here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TESTED = "tested"
MIN_REASON_CHARACTERS = 20

TRAPS: dict[int, tuple[str, str]] = {
    # What is inserted
    1: ("Four breakpoints are all, and the client's own count first, nested ones too", TESTED),
    2: ("A client that marks for itself knows better: hands off", TESTED),
    3: ("A 1h breakpoint must not come after a 5m one", TESTED),
    4: ("Thinking, blank text, deferred tools and children take no mark", TESTED),
    5: ("A mark on what changes every time writes for ever and never reads", TESTED),
    6: ("Below the model's minimum a mark does nothing and takes a slot", TESTED),
    7: ("More than nineteen new blocks put the last write out of reach", TESTED),
    8: ("A string and its one-block array are one prefix, Claude Code's system an array", TESTED),
    9: ("Any change but a mark breaks the signatures of thinking", TESTED),
    10: ("Text of the gateway's own in the prompt parts everybody's cache", TESTED),
    11: ("A mark on system covers the tools already", TESTED),
    12: ("What nobody reads again gets dearer by a quarter", TESTED),
    13: ("Server tools write on their own once any mark is there, and need a slot", TESTED),
    14: ("Threads, MCP servers, files and containers: the prompt is not all in the body", TESTED),
    15: (
        "Clouds lack fields and betas that the first party has",
        "Only the first party's API can be a route: there are no cloud routes to know the gaps of.",
    ),
    # Bytes
    16: ("Parsing and writing again changes numbers, escapes and order", TESTED),
    17: ("Lone surrogates and escapes must survive", TESTED),
    18: ("Warm-up, real call and retry must get the same edit", TESTED),
    19: ("An alias, a dated name and another model are three caches", TESTED),
    20: ("One beta more or less moves the prefix", TESTED),
    21: ("Header and body halves of a beta must both arrive", TESTED),
    # Ways and walls
    22: ("Caches are per workspace: a conversation must always go the same way", TESTED),
    23: ("A header can choose the upstream workspace, past the key's authorisation", TESTED),
    24: (
        "Another key after a 429 costs a whole prefix written anew",
        "There is no failover between upstreams or keys: a 429 or 529 is passed on.",
    ),
    25: ("A key may come in either header or both, and must reach no upstream", TESTED),
    26: ("A token may need a beta of its own beside the client's", TESTED),
    # Concurrency and warming
    27: ("Requests at the same time all write what one could write for them", TESTED),
    28: ("A TTL runs from the request's start", TESTED),
    29: ("A warm-up that differs in one parameter warms nothing", TESTED),
    30: ("A warm-up has to drop what a real call may have", TESTED),
    31: ("Warming spends rate limits and may go on for nobody", TESTED),
    32: ("A warm-up's empty answer is a success", TESTED),
    33: ("A cold cache all at once is a cliff of input tokens", TESTED),
    # Streams
    34: ("Forward what comes when it comes, comments and pings too, and let no proxy hold it", TESTED),
    35: ("An HTTP library decompresses and keeps the header that says compressed", TESTED),
    36: ("Default timeouts and body limits are far below the API's", TESTED),
    37: ("Events straddle pieces, fold lines and have unknown names; reading must not harm relaying", TESTED),
    38: ("Counts in message_delta are cumulative, and some facts come at the start only", TESTED),
    39: ("After the first byte no retry, and a cut must not look like an end", TESTED),
    40: ("A stream can fail after its 200", TESTED),
    41: ("A client that leaves is billed all the same", TESTED),
    42: ("Events without a name are ignored by clients", TESTED),
    # HTTP
    43: ("Headers of one hop stay on it, repeated betas are one list", TESTED),
    44: ("Match the path, keep the target as spelled, redirect nobody, answer probes", TESTED),
    45: ("Encoded bodies, and bombs among them", TESTED),
    46: ("Request ids are upstream's; errors of the gateway need one as well", TESTED),
    47: ("Local errors in the API's shape, not retried in vain; upstream's untouched", TESTED),
    48: ("An error need not be JSON", TESTED),
    49: ("Advice on retries must survive", TESTED),
    50: ("Retries multiply over the layers", TESTED),
    51: ("A spend cap lasts until the month ends, and a breach of it looks like a client's bug", TESTED),
    52: (
        "Signatures over a body must come after its last change",
        "Upstream is called with a credential in a header only; nothing that goes up is signed.",
    ),
    53: ("A call that does not stream may be silent for ten minutes", TESTED),
    # Money
    54: ("Price by model, date, band, speed, geography and tier of the answer", TESTED),
    55: ("Compaction and advisors are outside the totals", TESTED),
    56: ("Thinking and the split of writes are within the totals", TESTED),
    57: ("Writes without a split", TESTED),
    58: ("Refusals before output are free, but for three categories", TESTED),
    59: ("Searches are billed beside the tokens", TESTED),
    60: ("Set aside before the call, by the dearest class, without starving the budget", TESTED),
    61: ("Loops, advisors, fallbacks and compaction exceed any bound", TESTED),
    62: ("Batches and other holders of a key spend where the gateway does not see it", TESTED),
    63: ("Reports are in cents, prices in dollars", TESTED),
    64: ("Cache reads do not count as input tokens", TESTED),
    # Other endpoints
    65: ("Token counting takes fewer fields, and marks", TESTED),
    66: ("Token counting is free and must not be blocked", TESTED),
    67: ("The list of models is filtered in its own shape", TESTED),
    68: ("Batches, results and files are too large to hold", TESTED),
    69: ("New fields and values arrive without notice", TESTED),
    70: ("What is legal depends on version and model: upstream judges", TESTED),
    71: ("Prompts, thinking, signatures, ids and keys must be in no log", TESTED),
}


def guarded() -> dict[int, list[str]]:
    """Tests by the number of the trap in their names, found without importing them; 0 for one that is
    misspelled."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
                "test_trap_"
            ):
                spelled = re.match(r"test_trap_(\d\d)_", node.name)
                number = int(spelled[1]) if spelled else 0
                found.setdefault(number, []).append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


GUARDED = guarded()


def test_the_checklist_is_complete() -> None:
    assert list(TRAPS) == list(range(1, 72))
    assert len({title for title, _ in TRAPS.values()}) == len(TRAPS)


@pytest.mark.parametrize("number", TRAPS)
def test_every_trap_has_a_test_or_a_reason(number: int) -> None:
    title, state = TRAPS[number]
    tests = GUARDED.get(number, [])

    if state == TESTED:
        assert tests, f"no test carries trap_{number:02}: {title}"
    else:
        assert len(state) >= MIN_REASON_CHARACTERS, f"say why trap {number} has no test: {title}"
        assert not tests, f"trap {number} has tests, so it is TESTED: {tests}"


def test_no_test_carries_a_number_that_is_not_on_the_list() -> None:
    assert {number: names for number, names in GUARDED.items() if number not in TRAPS} == {}
