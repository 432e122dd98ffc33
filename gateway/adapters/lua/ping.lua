-- KEYS: heartbeat, schema. ARGV: schema version. Fails where Redis cannot be written or is not ours.
redis.call('SET', KEYS[1], now_ms(), 'PX', 86400000)
return check_schema(KEYS[2], ARGV[1])
