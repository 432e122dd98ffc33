#!/bin/sh
# Runs once, when the database is made. The owner makes the tables (`gateway ledger migrate`); the gateway itself may
# read them and add to them, and nothing else.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$(cat "$GATEWAY_PASSWORD_FILE")" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
CREATE ROLE gateway LOGIN PASSWORD :'password';
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO gateway;
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT ON TABLES TO gateway;
SQL
