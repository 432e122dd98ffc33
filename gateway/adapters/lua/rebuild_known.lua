-- KEYS: generation, leases, then records. ARGV: the generation ('' while it is gathered), how long they are kept in
-- ms, the beginning of the records' keys.
-- These exchanges are in the ledger's part already: closed, so that no late settlement books them once more. What
-- another replica has set aside again meanwhile (a batch's, say) is given back.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
local now = now_ms()
for i = 3, #KEYS do
  local known = record_of(KEYS[i], 'state', 'charges')
  if known[1] == 'open' then
    for _, c in ipairs(cmsgpack.unpack(known[2])) do settle_charge(c, 0, now, true) end
    redis.call('HDEL', KEYS[i], 'charges', 'said', 'answer')
    redis.call('ZREM', KEYS[2], string.sub(KEYS[i], #ARGV[3] + 1))
  end
  redis.call('HSET', KEYS[i], 'state', 'closed')
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
return 1
