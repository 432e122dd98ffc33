-- KEYS: generation, leases, ledgers, whose part was announced last of each ledger, then records. ARGV: the generation
-- ('' while it is gathered), how long they are kept in ms, the beginning of the records' keys, the ledger, a text of
-- its part's own.
-- Announces a ledger's part. These exchanges are in it: closed, so that no late settlement books them once more. What
-- another replica has set aside again meanwhile (a batch's, say) is given back. Nothing where a part is in already:
-- it may be an earlier one, which lacks some of them.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if redis.call('SISMEMBER', KEYS[3], ARGV[4]) == 1 then return 1 end
redis.call('HSET', KEYS[4], ARGV[4], ARGV[5])
redis.call('PEXPIRE', KEYS[4], 86400000)
local now = now_ms()
for i = 5, #KEYS do
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
