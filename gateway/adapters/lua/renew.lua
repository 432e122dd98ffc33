-- KEYS: record, leases. ARGV: id, lease in ms. Prolongs what is open; anything else stays as it is.
if record_of(KEYS[1], 'state')[1] ~= 'open' then return 0 end
redis.call('ZADD', KEYS[2], now_ms() + ARGV[2], ARGV[1])
return 1
