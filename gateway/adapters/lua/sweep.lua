-- KEYS: leases, what no ledger was given to book yet, what the one that asks was, generation, when each ledger asked
-- last. ARGV: beginning of the records' keys, how many at most, how long a swept record is kept in ms, the ledger that
-- asks, beginning of the keys of what ledgers were given, after how many ms of silence a ledger is taken for lost.
-- Closes reservations whose lease is over at what they had set aside. Returns what the ledger is to book, as
-- entry's id, what is said of it, and so on: that, and what was taken back since. What was presumed of counters
-- that were rebuilt since is not in the new ones, and so is not to be booked either. What a lost ledger was given
-- goes to this one.
local now, generation = now_ms(), redis.call('GET', KEYS[4]) or ''
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do
  local record = ARGV[1] .. id
  local known = record_of(record, 'state', 'charges', 'said')
  if known[1] == 'open' then
    redis.call('HSET', record, 'state', 'swept', 'generation', generation, 'ledger', ARGV[4])
    redis.call('PEXPIRE', record, ARGV[3])
    for _, c in ipairs(cmsgpack.unpack(known[2])) do
      if c[4] <= 0 and c[3] > 0 then settle_charge(c, c[3], now, true) end
    end
    -- Without it a replica of an older version made the reservation: nobody knows whose it was.
    if known[3] then redis.call('HSET', KEYS[3], id .. ':presumed', generation .. ' ' .. known[3]) end
  end
  redis.call('ZREM', KEYS[1], id)
end
redis.call('HSET', KEYS[5], ARGV[4], now)
local asked = redis.call('HGETALL', KEYS[5])
for i = 1, #asked, 2 do
  if now - asked[i + 1] > tonumber(ARGV[6]) then
    local lost = ARGV[5] .. asked[i]
    local left = redis.call('HRANDFIELD', lost, ARGV[2], 'WITHVALUES')
    for j = 1, #left, 2 do
      redis.call('HSET', KEYS[3], left[j], left[j + 1])
      redis.call('HDEL', lost, left[j])
      local id = string.match(left[j], '^(.*):presumed$')
      if id and redis.call('EXISTS', ARGV[1] .. id) == 1 then
        redis.call('HSET', ARGV[1] .. id, 'ledger', ARGV[4])
      end
    end
    if redis.call('EXISTS', lost) == 0 then redis.call('HDEL', KEYS[5], asked[i]) end
  end
end
local back = redis.call('HRANDFIELD', KEYS[2], ARGV[2], 'WITHVALUES')
for i = 1, #back, 2 do
  redis.call('HSET', KEYS[3], back[i], back[i + 1])
  redis.call('HDEL', KEYS[2], back[i])
end
local owed, answer = redis.call('HRANDFIELD', KEYS[3], ARGV[2], 'WITHVALUES'), {}
for i = 1, #owed, 2 do
  local space = string.find(owed[i + 1], ' ', 1, true)
  if string.sub(owed[i + 1], 1, space - 1) == generation then
    answer[#answer + 1], answer[#answer + 2] = owed[i], string.sub(owed[i + 1], space + 1)
  else
    redis.call('HDEL', KEYS[3], owed[i])
  end
end
return answer
