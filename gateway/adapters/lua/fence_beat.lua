-- KEYS: generation, gathering, staged, beats, ledgers, then the records that were acknowledged last. ARGV: replica,
-- number of its last beat, after how many ms a replica is not counted as living, the generation that it knows, the
-- ledger that it has in those counters ('': none), then for each record the state that it must be in, or a later
-- one ('open': any). What was swept names a ledger for good: a reservation whose sweep was lost, and which was
-- closed since like any other, does not. What an earlier process swept ('swept' and its ledger) may be forgotten.
-- Says that this replica lives. Where what was acknowledged to it is not there, the data went back in time (an
-- old snapshot, a failover that lost writes), and the generation is taken away.
-- Returns the generation or '', then the living replicas.
local now = now_ms()

local function is_missing(key, wanted)
  local known = record_of(key, 'state', 'ledger')
  local state = known[1]
  local before_by = string.match(wanted, '^swept (.+)$')
  if before_by then return state and known[2] ~= before_by end
  if not state then return true end
  if wanted == 'swept' and not known[2] then return true end
  return wanted ~= 'open' and state ~= wanted and state ~= 'closed' and state ~= 'refused'
end

local function went_back(number)
  if number < tonumber(ARGV[2]) then return true end
  if ARGV[5] ~= '' and redis.call('SISMEMBER', KEYS[5], ARGV[5]) == 0 then return true end
  for i = 6, #ARGV do
    if is_missing(KEYS[i], ARGV[i]) then return true end
  end
  return false
end

local seen = redis.call('HGET', KEYS[4], ARGV[1])
local number = seen and tonumber(string.match(seen, '^%d+')) or 0
-- Never back: a beat that was given up on, and is read by a server that was frozen, may come after later ones.
redis.call('HSET', KEYS[4], ARGV[1], string.format('%d %d', math.max(number, ARGV[2] + 1), now))
redis.call('PEXPIRE', KEYS[4], 86400000)
local generation = redis.call('GET', KEYS[1])
if generation and generation == ARGV[4] and went_back(number) then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  generation = false
end
local answer = {generation or ''}
local beats = redis.call('HGETALL', KEYS[4])
for i = 1, #beats, 2 do
  local age = now - tonumber(string.match(beats[i + 1], '%d+$'))
  if age <= tonumber(ARGV[3]) then answer[#answer + 1] = beats[i] end
  if age > 3600000 then redis.call('HDEL', KEYS[4], beats[i]) end
end
return answer
