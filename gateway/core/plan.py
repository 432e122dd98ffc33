"""What the gateway intends for one Messages body: read, place, estimate. Pure; `gateway explain` prints it.

Caching does no harm: whatever goes wrong between reading and placing, the plan carries the client's own
bytes and says so. A body that cannot be read is the client's to mend, and raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from traceback import extract_tb

import msgspec

from gateway.core.api_facts import MAX_BODY_BYTES
from gateway.core.edit import apply_placement
from gateway.core.estimate import Estimate, estimate_spend
from gateway.core.headers import Headers, value_of
from gateway.core.ids import PrefixKey
from gateway.core.learned_estimates import LearnedEstimates
from gateway.core.models import ModelFacts
from gateway.core.placement import Occasion, Placement, PlacementPolicy, check_placement
from gateway.core.prefix import KeyChain, cache_scope, key_chain
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import PlacementMode, Rules, Workspace
from gateway.core.typical import block_tokens

UNPLACED = Placement(reason="placement is off")


class Plan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The decisions for one body. `pieces` is what goes upstream, to be written without joining."""

    prompt: Prompt
    facts: ModelFacts
    placement: Placement
    """As decided; in shadow mode it is not applied."""
    pieces: tuple[bytes | memoryview, ...]
    applied: bool
    """False where nothing that was decided is sent: shadow mode."""
    failure: str | None
    """Why planning was given up, for the log; the client's bytes go through."""

    @property
    def continues_thread(self) -> bool:
        """Whether it appends to a message thread that upstream keeps; such a call can be made once only."""
        start, end = self.prompt.fields.get("thread", (0, 0))
        thread = self.prompt.body[start:end]
        return b"previous_message_id" in thread or b"\\u" in thread  # a name may be spelled with escapes


class Reading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was found in one body, before anything is decided."""

    prompt: Prompt
    facts: ModelFacts
    scope: bytes
    chain: KeyChain | None
    """None where the policy needs no keys, or nothing is to be placed."""
    failure: str | None = None

    @property
    def keys(self) -> tuple[PrefixKey, ...]:
        """One for each block; empty where there are none."""
        return () if self.chain is None else self.chain.keys


def read_call(
    body: bytes,
    *,
    rules: Rules,
    workspace: Workspace,
    policy: PlacementPolicy,
    headers: Headers,
    wanted: bool,
    like: Reading | None = None,
    pause: Callable[[], None] | None = None,
) -> Reading:
    """Read `body`; all that takes time for a large one is done here. What `like` has in common with it is not
    read again. `pause` is called again and again meanwhile. Raises `BadRequest` where it cannot be a
    Messages call."""
    prompt = read_prompt(body, None if like is None else like.prompt, pause)
    facts = rules.models.facts(prompt.model)
    scope, failure = b"", None
    chain: KeyChain | None = None
    if wanted and policy.needs_keys:
        try:
            scope = cache_scope(
                secret=rules.prefix_secret, workspace=workspace.id, prompt=prompt, headers=headers
            )
            chain = key_chain(prompt, scope, None if like is None else like.chain, pause)
            # Kept by the outline. Files take a search through all of their bytes.
            block_tokens(prompt, facts)
        except Exception as error:  # as below
            failure = _what_failed(error)
    return Reading(prompt=prompt, facts=facts, scope=scope, chain=chain, failure=failure)


def place_call(
    reading: Reading,
    *,
    rules: Rules,
    workspace: Workspace,
    policy: PlacementPolicy,
    call_id: str,
    at: float,
    headers: Headers = (),
    wanted: bool = True,
    may_wait: bool = False,
    may_claim: bool = False,
    warm_up: bool = False,
) -> Plan:
    """Decide the breakpoints. `wanted` is False where none are to be placed."""
    prompt, failure = reading.prompt, reading.failure
    placement = UNPLACED if failure is None else Placement(reason="planning failed")
    pieces: tuple[bytes | memoryview, ...] = (prompt.body,)
    applied = workspace.placement is PlacementMode.ON
    if wanted and failure is None:
        try:
            occasion = Occasion(
                call_id=call_id,
                at=at,
                scope=reading.scope,
                prices=rules.prices.factors(prompt.model, at=at),
                may_wait=may_wait,
                may_claim=may_claim,
                headers=headers,
                warm_up=warm_up,
                price=rules.prices.input_nanousd(prompt.model, at=at),
            )
            placement = policy.plan(prompt, reading.keys, reading.facts, workspace, occasion)
            problem = check_placement(prompt, placement)
            if problem is not None:
                raise AssertionError(problem)
            if applied:
                pieces = apply_placement(prompt, placement)
            if _led_too_far(prompt.body, pieces):
                policy.failed(call_id, at)  # what it decided is not sent
                pieces = (prompt.body,)
                placement = Placement(reason="With breakpoints the body would be longer than the API takes.")
        except Exception as error:  # the one place where any bug of planning must not become a failed call
            placement, failure = Placement(reason="planning failed"), _what_failed(error)
            pieces = (prompt.body,)
            with suppress(Exception):  # what it decided is not sent
                policy.failed(call_id, at)
    return Plan(
        prompt=prompt,
        facts=reading.facts,
        placement=placement,
        pieces=pieces,
        applied=applied,
        failure=failure,
    )


def _led_too_far(body: bytes, pieces: Sequence[bytes | memoryview]) -> bool:
    """Whether what was added is what makes it too long."""
    if len(pieces) == 1:
        return False
    sent = sum(map(len, pieces))
    return any(len(body) <= most < sent for most in MAX_BODY_BYTES.value)


def in_utf8(body: bytes, headers: Headers) -> bytes:
    """The body as it is read here: itself, unless its content type says that it is Latin-1, which the API
    takes as well (error classes of the Python package, 2.12.0)."""
    _, _, parameters = (value_of(headers, b"content-type") or b"").lower().partition(b";")
    if not any(_LATIN_1.fullmatch(each.strip()) for each in parameters.split(b";")) or body.isascii():
        return body
    return body.decode("latin-1").encode()


_LATIN_1 = re.compile(rb'charset="?(?:iso-?8859-1|latin-?1)"?')


def wants_placement(headers: Headers, rules: Rules, workspace: Workspace) -> bool:
    """Whether the workspace and the request let breakpoints be decided at all."""
    return workspace.placement is not PlacementMode.OFF and not _opts_out(headers, rules)


def _what_failed(error: Exception) -> str:
    """Type and place, for the log. The message only of our own guard: that of a decoding error, for one,
    repeats what it could not decode, and logs hold no content."""
    place = extract_tb(error.__traceback__)[-1]
    said = f": {error}" if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}{said}"


def _opts_out(headers: Headers, rules: Rules) -> bool:
    value = value_of(headers, rules.placement_header.encode())
    return value is not None and value.strip().lower() == b"off"


def estimate_plan(
    plan: Plan,
    *,
    rules: Rules,
    workspace: Workspace,
    at: float,
    learned: LearnedEstimates | None = None,
    counted: int | None = None,
) -> Estimate:
    """What the plan may cost, as far as the workspace's mode promises; `learned` is what bills have taught,
    `counted` what upstream counted the prompt as. Raises on a bug: money is at stake, so a call that cannot
    be estimated is not sent."""
    sent_as_placed = plan.applied or not plan.placement.breakpoints
    return estimate_spend(
        plan.prompt,
        plan.placement if sent_as_placed else UNPLACED,
        plan.facts,
        rules.prices,
        mode=workspace.estimate,
        at=at,
        output_cap_tokens=workspace.output_cap_tokens,
        workspace=workspace.id,
        quantile=workspace.estimate_quantile,
        learned=learned,
        counted=counted,
    )
