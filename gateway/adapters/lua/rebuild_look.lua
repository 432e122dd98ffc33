-- KEYS: generation, gathering, staged, ledgers, leases, lost leases, which generations the gathering comes after, limits
-- whose counters stay. ARGV: replica, its ledger, whether there is one that all share and that comes first, whether it knew the living ones, for
-- how many ms a claim holds, how long is gathered at least and at most, the beginning of the records' keys, how many
-- reservations are closed at once, a random text, after how many ms the gathering begins anew, how ids end under which
-- is booked afterwards, a pattern of the counters of dollars, how many keys are looked at for it at once, the last
-- generation that the replica wrote under, how many windows are computed anew, these as `period label`, then the
-- replicas that are expected to contribute.
-- One turn of the rebuilding: begins it, closes what the lost time had left open, claims the reading of a ledger,
-- and at last sets the counters and opens the fence, all in one step. Safe to repeat, and for any replica.
-- Returns the generation or '', then 1 where this replica is to read its ledger now, 2 where it is to read the
-- shared one, and 3 where there is more to do here at once; and when the gathering began.
local generation = redis.call('GET', KEYS[1])
if generation then return {generation, 0, 0} end

local now = now_ms()
local begun = redis.call('HGET', KEYS[2], 'begun')
local is_new = not begun
-- What was gathered before counters that somebody has followed since lacks what was spent under them: the data went
-- back in time. It begins anew, once for each generation that it does not know of. Which it knows of is kept with the
-- counters, for who comes when they are there.
if begun and ARGV[15] ~= '' and redis.call('SADD', KEYS[7], ARGV[15]) == 1 then
  redis.call('DEL', KEYS[2])
  begun = false
end
if not begun then
  begun = now
  redis.call('HSET', KEYS[2], 'begun', now)
  redis.call('DEL', KEYS[3], KEYS[4])
  if is_new then
    redis.call('DEL', KEYS[7])
    if ARGV[15] ~= '' then redis.call('SADD', KEYS[7], ARGV[15]) end
  end
  redis.call('ZUNIONSTORE', KEYS[6], 2, KEYS[5], KEYS[6], 'AGGREGATE', 'MAX')
  redis.call('DEL', KEYS[5])
end
redis.call('HSETNX', KEYS[2], 'x:' .. ARGV[1], 1)
for i = 17 + ARGV[16], #ARGV do redis.call('HSETNX', KEYS[2], 'x:' .. ARGV[i], 1) end

-- Dollars that were set aside before: released, so that no lease books them later, and forgotten, so that who still
-- runs can take them anew, under either id. The rest stays with its calls: nobody takes that anew. Of what was booked
-- afterwards nothing stays, as it is asked for anew as a whole.
local lost = redis.call('ZRANGE', KEYS[6], 0, ARGV[9] - 1, 'WITHSCORES')
for i = 1, #lost, 2 do
  local id, record = lost[i], ARGV[8] .. lost[i]
  local known = record_of(record, 'state', 'charges')
  if known[1] == 'open' then
    local is_late, rest = string.sub(id, -#ARGV[12]) == ARGV[12], {}
    for _, c in ipairs(cmsgpack.unpack(known[2])) do
      if is_late or is_dollars(c) then settle_charge(c, 0, now, true) else rest[#rest + 1] = c end
    end
    if #rest == 0 then
      redis.call('DEL', record)
    else
      redis.call('HSET', record, 'charges', cmsgpack.pack(rest), 'rest', 1)
      redis.call('HDEL', record, 'said')
      redis.call('ZADD', KEYS[5], 'NX', lost[i + 1], id)
    end
  end
  redis.call('ZREM', KEYS[6], id)
end
if #lost == 2 * ARGV[9] then return {'', 3, begun} end

-- What the counter of a limit says that is to stay at least; false for all others.
local function stays(key)
  local limit = string.match(key, '/([^/]*)/nanousd/calendar_')
  if not limit or redis.call('SISMEMBER', KEYS[8], limit) == 0 then return false end
  return tonumber(record_of(key, 'spent')[1])
end

-- What no ledger says anything of was never spent: all counters of the windows that are computed anew begin at zero.
local cursor = redis.call('HGET', KEYS[2], 'cursor') or '0'
if cursor ~= 'done' then
  local windows = {}
  for i = 17, 16 + ARGV[16] do windows[ARGV[i]] = true end
  local found = redis.call('SCAN', cursor, 'MATCH', ARGV[13], 'COUNT', ARGV[14])
  for _, key in ipairs(found[2]) do
    local period, label = string.match(key, '/nanousd/(calendar_%a+)/.-([^/]*)$')
    if period and windows[period .. ' ' .. label] then
      if stays(key) then redis.call('HSET', key, 'set_aside', 0) else redis.call('DEL', key) end
    end
  end
  cursor = found[1] == '0' and 'done' or found[1]
  redis.call('HSET', KEYS[2], 'cursor', cursor)
  if cursor ~= 'done' then return {'', 3, begun} end
end

-- Whether it is for this replica to read a ledger that is not in yet: for some time for nobody else.
local function claims(ledger)
  local claim = redis.call('HGET', KEYS[2], 'k:' .. ledger)
  if claim and string.match(claim, '^%S+') ~= ARGV[1] and now < tonumber(string.match(claim, '%d+$')) then
    return false
  end
  redis.call('HSET', KEYS[2], 'k:' .. ledger, string.format('%s %d', ARGV[1], now + ARGV[5]))
  return true
end

-- What is shared is read first, as it says how far it goes: each brings only what is not shipped to it.
if ARGV[3] == '1' and redis.call('SISMEMBER', KEYS[4], 'shared') == 0 then
  return {'', claims('shared') and 2 or 0, begun}
end
if redis.call('SISMEMBER', KEYS[4], ARGV[2]) == 0 then return {'', claims(ARGV[2]) and 1 or 0, begun} end
redis.call('HSET', KEYS[2], 'a:' .. ARGV[1], 1)

-- Whether somebody who lives has not brought its part.
local function waiting()
  -- Nobody can bring its own part before the shared one is in, however long that takes.
  local since = tonumber(redis.call('HGET', KEYS[2], 'shared') or begun)
  if now >= since + ARGV[7] then return false end
  if ARGV[4] ~= '1' and now < begun + ARGV[6] then return true end
  local fields, said = redis.call('HGETALL', KEYS[2]), {}
  for i = 1, #fields, 2 do said[fields[i]] = true end
  for i = 1, #fields, 2 do
    local name = string.match(fields[i], '^x:(.*)$')
    if name and not said['a:' .. name] then return true end
  end
  return false
end
if waiting() then return {'', 0, begun} end
-- A part that was read so long ago (the store was away since) lacks what is taken to be surely in it.
if now - tonumber(redis.call('HGET', KEYS[2], 'first') or now) > tonumber(ARGV[11]) then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  return {'', 0, begun}
end

generation = string.format('%d-%s', now, ARGV[10])
redis.call('SET', KEYS[1], generation)
local staged = redis.call('HGETALL', KEYS[3])
for i = 1, #staged, 2 do
  local spent = math.max(tonumber(staged[i + 1]), stays(staged[i]) or 0)
  redis.call('HSET', staged[i], 'spent', saturated(spent), 'set_aside', 0)
  redis.call('PEXPIRE', staged[i], 3456000000) -- 40 days: a month and a week, and more
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[8])
return {generation, 0, begun}
