"""The names of spans and attributes, all in one place: conventions for generative AI are in development, and
rename now and then. No name here is a metric's.

Sources: OpenTelemetry semantic conventions for generative AI (page on Anthropic), HTTP and errors.
"""

from __future__ import annotations

from typing import Final

CONVENTIONS: Final = "semantic-conventions-genai, development, read 2026-11-22"
SCOPE: Final = "claude-cache-gateway"

SERVICE_NAME, SERVICE_VERSION = "service.name", "service.version"
PROVIDER, ANTHROPIC = "gen_ai.provider.name", "anthropic"
OPERATION, CHAT = "gen_ai.operation.name", "chat"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
"""All of the prompt; what was read from and written to the cache is part of it."""
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
OLD_CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
"""As the conventions called it before, and readers still do."""
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"

ERROR_TYPE = "error.type"
METHOD = "http.request.method"
STATUS = "http.response.status_code"
SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"

# Of our own: there are no conventions for them.
EXCHANGE = "gateway.exchange.id"
ENDPOINT = "gateway.endpoint"
OUTCOME = "gateway.outcome"
ERROR_CODE = "gateway.error.code"
ORGANISATION = "gateway.organisation"
TEAM = "gateway.team"
WORKSPACE = "gateway.workspace"
KEY_ID = "gateway.key.id"
ROUTE = "gateway.route"
COST_NANOUSD = "gateway.cost.nanousd"
COST_USD = "gateway.cost.usd"
SAVED_NANOUSD = "gateway.saved.nanousd"
BASIS = "gateway.usage.basis"
COHORT = "gateway.placement.cohort"
BREAKPOINTS = "gateway.placement.breakpoints"
PLACEMENT_REASON = "gateway.placement.reason"
MISS_CAUSE = "gateway.cache.miss_cause"
HELD_SECONDS = "gateway.held.seconds"
OVERHEAD_SECONDS = "gateway.overhead.seconds"
LIMIT = "gateway.limit"
STORE_DEGRADED = "gateway.store.degraded"
UPSTREAM_REQUEST = "gateway.upstream.request_id"
ATTEMPT = "gateway.attempt"
