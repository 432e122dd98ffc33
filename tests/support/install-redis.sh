#!/usr/bin/env bash
# Make sure that a redis-server is there for the tests: install Debian's where that is allowed, else say what
# is missing and fail. Tests on a real Redis are never skipped in silence.
set -euo pipefail
command -v redis-server >/dev/null && exit 0
if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
  echo "Installing redis-server from Debian"
  # The packaged service is not wanted: each test starts a server of its own.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server; } >/dev/null 2>&1 || true
fi
command -v redis-server >/dev/null && exit 0
echo "redis-server is missing and the tests need it: run 'apt-get install redis-server' as root, or put the" >&2
echo "binary of Redis 6.2 or newer on the PATH." >&2
exit 1
