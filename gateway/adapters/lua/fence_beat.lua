-- KEYS: generation, gathering, staged, beats, the record that was acknowledged last. ARGV: replica, number of its
-- last beat, the state that the record must be in, or a later one ('open': any; '': unknown), after how many ms a replica is not
-- counted as living, the generation that it knows.
-- Says that this replica lives. Where what was acknowledged to it is not there, the data went back in time (an
-- old snapshot, a failover that lost writes), and the generation is taken away.
-- Returns the generation or '', then the living replicas.
local now = now_ms()
local seen, state = redis.call('HGET', KEYS[4], ARGV[1]), nil
if ARGV[3] ~= '' then state = redis.call('HGET', KEYS[5], 'state') end
local number = seen and tonumber(string.match(seen, '^%d+')) or 0
-- Never back: a beat that was given up on, and is read by a server that was frozen, may come after later ones.
redis.call('HSET', KEYS[4], ARGV[1], string.format('%d %d', math.max(number, ARGV[2] + 1), now))
redis.call('PEXPIRE', KEYS[4], 86400000)
local generation = redis.call('GET', KEYS[1])
if generation and generation == ARGV[5] then
  local back = number < tonumber(ARGV[2])
  if ARGV[3] ~= '' and not (state and (ARGV[3] == 'open' or state == ARGV[3] or state == 'closed')) then back = true end
  if back then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    generation = false
  end
end
local answer = {generation or ''}
local beats = redis.call('HGETALL', KEYS[4])
for i = 1, #beats, 2 do
  local age = now - tonumber(string.match(beats[i + 1], '%d+$'))
  if age <= tonumber(ARGV[4]) then answer[#answer + 1] = beats[i] end
  if age > 3600000 then redis.call('HDEL', KEYS[4], beats[i]) end
end
return answer
