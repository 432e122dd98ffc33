-- KEYS: record, leases, what no ledger was given to book yet, generation. ARGV: id, how long a closed id is kept
-- in ms, until how long after counters were made calls may have come in before them, how long theirs are kept, then
-- the actual amount of each unit.
-- Settles in the buckets that the record names; at zero amounts it releases. Corrects what was swept. An unknown
-- id is remembered, so that a reserve which is still under way will not open it. What is corrected is to be taken
-- back in the ledger too. Returns 1 where the counters have it under this id, by this close or an earlier one;
-- 0 also where a rebuilding left it its rest, which is no dollars; -1 where the id is unknown.
local known = record_of(KEYS[1], 'state', 'charges', 'said', 'generation', 'closed_in', 'ledger', 'rest')
local generation = redis.call('GET', KEYS[4]) or ''
if known[1] == 'closed' then return known[5] == generation and 1 or 0 end
if known[1] == 'refused' then return 0 end

redis.call('HSET', KEYS[1], 'state', 'closed')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if not known[1] then return -1 end

if known[1] == 'swept' then
  -- Counters that were rebuilt since have what ledgers say: the presumed and, from its own entry, the actual.
  if (known[4] or '') ~= generation then return 0 end
  -- To the ledger that has the presumed: each so has a sum of its own that is never too little.
  local ledger = KEYS[3] .. (known[6] or '')
  if known[3] then redis.call('HSET', ledger, ARGV[1] .. ':corrected', generation .. ' ' .. known[3]) end
end
local now = now_ms()
for _, c in ipairs(cmsgpack.unpack(known[2])) do
  settle_charge(c, tonumber(ARGV[4 + c[2]]), now, known[1] == 'open')
end
-- A replica that starts again cannot tell from its ledger whether a call that came in before these counters were
-- made was set aside in them: the closed id tells it, for as long as it may ask.
local came, made = string.match(known[3] or '', '"received_at_ms":(%d+)'), string.match(generation, '^%d+')
if came and made and came - made <= tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], math.max(ARGV[2], ARGV[4]))
end
redis.call('HDEL', KEYS[1], 'charges', 'said')
redis.call('ZREM', KEYS[2], ARGV[1])
if known[7] then return 0 end
redis.call('HSET', KEYS[1], 'closed_in', generation)
return 1
