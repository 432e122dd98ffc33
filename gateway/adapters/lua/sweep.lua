-- KEYS: leases, what no ledger was given to book yet, what the one that asks was, generation, when each ledger asked
-- last. ARGV: beginning of the records' keys, how many at most, how long a swept record is kept in ms, the ledger that
-- asks, beginning of the keys of what ledgers were given, after how many ms of silence a ledger is taken for lost.
-- Closes reservations whose lease is over at what they had set aside. Returns what the ledger is to book, as
-- entry's id, what is said of it, and so on: that, and what was taken back since. What was presumed of counters
-- that were rebuilt since is not in the new ones, and so is not to be booked either. What a lost ledger was given
-- goes to this one.
local now, generation = now_ms(), redis.call('GET', KEYS[4]) or ''

-- Names and what is said, each once; before what was taken back what was presumed: a ledger that had only the first
-- of them would be below what was spent for good, should the store forget the other.
local function some_of(key)
  local found, some, have = redis.call('HRANDFIELD', key, ARGV[2], 'WITHVALUES'), {}, {}
  local function take(name, said)
    if have[name] or not said then return end
    have[name] = true
    some[#some + 1], some[#some + 2] = name, said
  end
  for i = 1, #found, 2 do
    local id = string.match(found[i], '^(.*):corrected$')
    if id then take(id .. ':presumed', redis.call('HGET', key, id .. ':presumed')) end
    take(found[i], found[i + 1])
  end
  return some
end

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
    local left = some_of(lost)
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
local back = some_of(KEYS[2])
for i = 1, #back, 2 do
  redis.call('HSET', KEYS[3], back[i], back[i + 1])
  redis.call('HDEL', KEYS[2], back[i])
end
local owed, answer = some_of(KEYS[3]), {}
for i = 1, #owed, 2 do
  local space = string.find(owed[i + 1], ' ', 1, true)
  if string.sub(owed[i + 1], 1, space - 1) == generation then
    answer[#answer + 1], answer[#answer + 2] = owed[i], string.sub(owed[i + 1], space + 1)
  else
    redis.call('HDEL', KEYS[3], owed[i])
  end
end
return answer
