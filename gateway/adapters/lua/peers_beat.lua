-- KEYS: beats. ARGV: replica, after how many ms of silence a replica is forgotten. Says that this one is alive.
-- Returns every replica that is known, each with the instant of its last beat.
local now, known = now_ms(), {}
redis.call('HSET', KEYS[1], ARGV[1], now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local beats = redis.call('HGETALL', KEYS[1])
for i = 1, #beats, 2 do
  if now - beats[i + 1] > tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[1], beats[i])
  else
    known[#known + 1] = beats[i]
    known[#known + 1] = beats[i + 1]
  end
end
return known
