-- KEYS: leases. ARGV: beginning of the records' keys, how many at most, how long a swept record is kept in ms.
-- Closes reservations whose lease is over at what they had set aside; returns how many.
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
local swept = 0
for _, id in ipairs(due) do
  local record = ARGV[1] .. id
  local known = redis.call('HMGET', record, 'state', 'charges')
  if known[1] == 'open' then
    redis.call('HSET', record, 'state', 'swept')
    redis.call('PEXPIRE', record, ARGV[3])
    for _, c in ipairs(cmsgpack.unpack(known[2])) do
      if c[4] == 0 and c[3] > 0 then settle_charge(c, c[3], now, true) end
    end
    swept = swept + 1
  end
  redis.call('ZREM', KEYS[1], id)
end
return swept
