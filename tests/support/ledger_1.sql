-- A ledger as schema 1 wrote it (2026-11): two entries, and below the log line of a third that found no room.
PRAGMA application_id = 1818584167;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    schema_version INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    organisation TEXT,
    workspace TEXT,
    key_id TEXT,
    route TEXT,
    endpoint TEXT NOT NULL,
    method TEXT NOT NULL,
    streaming INTEGER NOT NULL,
    model TEXT,
    state TEXT NOT NULL,
    basis TEXT NOT NULL,
    status INTEGER NOT NULL,
    error_code TEXT,
    upstream_error_type TEXT,
    upstream_request_id TEXT,
    message_id TEXT,
    stop_reason TEXT,
    attempts INTEGER NOT NULL,
    uncached_input_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_5m_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    web_search_requests INTEGER NOT NULL,
    web_fetch_requests INTEGER NOT NULL,
    code_execution_requests INTEGER NOT NULL,
    iterations INTEGER NOT NULL,
    service_tier TEXT,
    inference_geo TEXT,
    speed TEXT,
    uncached_input_nanousd INTEGER NOT NULL,
    cache_read_nanousd INTEGER NOT NULL,
    cache_write_5m_nanousd INTEGER NOT NULL,
    cache_write_1h_nanousd INTEGER NOT NULL,
    output_nanousd INTEGER NOT NULL,
    server_tools_nanousd INTEGER NOT NULL,
    counterfactual_nanousd INTEGER NOT NULL,
    price_id TEXT NOT NULL,
    price_fallback INTEGER NOT NULL,
    reservation_id TEXT,
    estimated_nanousd INTEGER NOT NULL,
    overrun_nanousd INTEGER NOT NULL,
    binding_limit TEXT,
    shadow_refusals TEXT NOT NULL,
    store_degraded INTEGER NOT NULL,
    breakpoints INTEGER NOT NULL,
    placement_reason TEXT NOT NULL,
    plan_failed INTEGER NOT NULL,
    client_marks INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    total_seconds REAL NOT NULL,
    body_read_seconds REAL NOT NULL,
    overhead_seconds REAL NOT NULL,
    upstream_first_byte_seconds REAL,
    first_token_seconds REAL,
    tags TEXT NOT NULL
) STRICT;
INSERT INTO "entries" VALUES(1,'old-1',1,1795000000250,'default','search','k1','direct','messages','POST',1,'claude-test-1','answered','reported',200,NULL,NULL,'req_test_1','msg_test_1','end_turn',1,100,9000,900,0,300,0,0,0,0,'standard',NULL,NULL,300000,2700001,3375000,0,4500000,0,34500000,'claude-test-1@2026-01-01',0,'exchange-1',40000000,0,NULL,'[]',0,1,'the last stable block',0,0,131072,8192,2.5,0.001,0.0012,0.7,0.8,'{}');
INSERT INTO "entries" VALUES(2,'old-2',1,1795000000250,'default','search','k1',NULL,'messages','POST',0,NULL,'refused','none',401,'unauthenticated',NULL,NULL,NULL,NULL,0,0,0,0,0,0,0,0,0,0,NULL,NULL,NULL,0,0,0,0,0,0,0,'',0,NULL,0,0,NULL,'[]',0,0,'',0,0,131072,200,0.001,0.0,0.0,NULL,NULL,'{}');
CREATE INDEX entries_by_time ON entries (received_at_ms);
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('entries',2);
COMMIT;
-- ledger entry not stored, `gateway ledger restore` puts it back: eyJpZCI6ICJvbGQtMyIsICJzY2hlbWFfdmVyc2lvbiI6IDEsICJyZWNlaXZlZF9hdF9tcyI6IDE3OTUwMDAwMDAyNTAsICJvcmdhbmlzYXRpb24iOiAiZGVmYXVsdCIsICJ3b3Jrc3BhY2UiOiAic2VhcmNoIiwgImtleV9pZCI6ICJrMSIsICJyb3V0ZSI6ICJkaXJlY3QiLCAiZW5kcG9pbnQiOiAibWVzc2FnZXMiLCAibWV0aG9kIjogIlBPU1QiLCAic3RyZWFtaW5nIjogMSwgIm1vZGVsIjogImNsYXVkZS10ZXN0LTEiLCAic3RhdGUiOiAiYW5zd2VyZWQiLCAiYmFzaXMiOiAicmVwb3J0ZWQiLCAic3RhdHVzIjogMjAwLCAiZXJyb3JfY29kZSI6IG51bGwsICJ1cHN0cmVhbV9lcnJvcl90eXBlIjogbnVsbCwgInVwc3RyZWFtX3JlcXVlc3RfaWQiOiAicmVxX3Rlc3RfMSIsICJtZXNzYWdlX2lkIjogIm1zZ190ZXN0XzEiLCAic3RvcF9yZWFzb24iOiAiZW5kX3R1cm4iLCAiYXR0ZW1wdHMiOiAxLCAidW5jYWNoZWRfaW5wdXRfdG9rZW5zIjogMTAwLCAiY2FjaGVfcmVhZF90b2tlbnMiOiA5MDAwLCAiY2FjaGVfd3JpdGVfNW1fdG9rZW5zIjogOTAwLCAiY2FjaGVfd3JpdGVfMWhfdG9rZW5zIjogMCwgIm91dHB1dF90b2tlbnMiOiAzMDAsICJ3ZWJfc2VhcmNoX3JlcXVlc3RzIjogMCwgIndlYl9mZXRjaF9yZXF1ZXN0cyI6IDAsICJjb2RlX2V4ZWN1dGlvbl9yZXF1ZXN0cyI6IDAsICJpdGVyYXRpb25zIjogMCwgInNlcnZpY2VfdGllciI6ICJzdGFuZGFyZCIsICJpbmZlcmVuY2VfZ2VvIjogbnVsbCwgInNwZWVkIjogbnVsbCwgInVuY2FjaGVkX2lucHV0X25hbm91c2QiOiAzMDAwMDAsICJjYWNoZV9yZWFkX25hbm91c2QiOiAyNzAwMDAxLCAiY2FjaGVfd3JpdGVfNW1fbmFub3VzZCI6IDMzNzUwMDAsICJjYWNoZV93cml0ZV8xaF9uYW5vdXNkIjogMCwgIm91dHB1dF9uYW5vdXNkIjogNDUwMDAwMCwgInNlcnZlcl90b29sc19uYW5vdXNkIjogMCwgImNvdW50ZXJmYWN0dWFsX25hbm91c2QiOiAzNDUwMDAwMCwgInByaWNlX2lkIjogImNsYXVkZS10ZXN0LTFAMjAyNi0wMS0wMSIsICJwcmljZV9mYWxsYmFjayI6IDAsICJyZXNlcnZhdGlvbl9pZCI6ICJleGNoYW5nZS0xIiwgImVzdGltYXRlZF9uYW5vdXNkIjogNDAwMDAwMDAsICJvdmVycnVuX25hbm91c2QiOiAwLCAiYmluZGluZ19saW1pdCI6IG51bGwsICJzaGFkb3dfcmVmdXNhbHMiOiAiW10iLCAic3RvcmVfZGVncmFkZWQiOiAwLCAiYnJlYWtwb2ludHMiOiAxLCAicGxhY2VtZW50X3JlYXNvbiI6ICJ0aGUgbGFzdCBzdGFibGUgYmxvY2siLCAicGxhbl9mYWlsZWQiOiAwLCAiY2xpZW50X21hcmtzIjogMCwgInJlcXVlc3RfYnl0ZXMiOiAxMzEwNzIsICJyZXNwb25zZV9ieXRlcyI6IDgxOTIsICJ0b3RhbF9zZWNvbmRzIjogMi41LCAiYm9keV9yZWFkX3NlY29uZHMiOiAwLjAwMSwgIm92ZXJoZWFkX3NlY29uZHMiOiAwLjAwMTIsICJ1cHN0cmVhbV9maXJzdF9ieXRlX3NlY29uZHMiOiAwLjcsICJmaXJzdF90b2tlbl9zZWNvbmRzIjogMC44LCAidGFncyI6ICJ7fSJ9
