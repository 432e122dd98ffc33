-- KEYS: sums, ledgers that are in the counters. ARGV: a ledger, what it says, for how many ms that is kept, after how
-- many ms of silence a ledger is taken for one whose replica is down. Comes after clock.lua.
-- Writes down what it says. Returns whether all that are in the counters are of replicas that live, then what the
-- others of these said last.
local now = now_ms()
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local answer, said = {1}, redis.call('HGETALL', KEYS[1])
local texts = {}
for i = 1, #said, 2 do
  if redis.call('SISMEMBER', KEYS[2], said[i]) == 1 then
    texts[said[i]] = said[i + 1]
  elseif said[i] ~= ARGV[1] then
    redis.call('HDEL', KEYS[1], said[i])
  end
end
for _, ledger in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local text = texts[ledger]
  if ledger ~= ARGV[1] and not string.find(ledger, ' ', 1, true) then
    if not text or now - tonumber(string.match(text, '^%d+')) > tonumber(ARGV[4]) then answer[1] = 0 end
    if text then answer[#answer + 1] = string.match(text, ' (.*)$') end
  end
end
return answer
