-- KEYS: generation, gathering, staged, ledgers, whose part was announced last of each ledger. ARGV: replica, ledger,
-- the generation ('' while it is gathered), when the gathering began that the part was read for, the part's own text,
-- how many chains it goes how far with, these as texts, then keys of windows, each with what the ledger says was spent.
-- Adds a ledger's part once, whoever brings it and however often: to what is gathered, or, where the fence has been
-- opened without it, to the counters. One that comes after a later one was announced is not taken: it lacks what that
-- one has closed. Returns 1 where a part is in.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[3] then return 0 end
local gathering = ARGV[3] == ''
if gathering and (redis.call('HGET', KEYS[2], 'begun') or '') ~= ARGV[4] then return 0 end
local new = redis.call('SISMEMBER', KEYS[4], ARGV[2]) == 0
if new and redis.call('HGET', KEYS[5], ARGV[2]) ~= ARGV[5] then return 0 end
if new then
  redis.call('SADD', KEYS[4], ARGV[2])
  local first = 7 + ARGV[6]
  for i = 7, first - 1 do redis.call('SADD', KEYS[4], ARGV[i]) end
  for i = first, #ARGV, 2 do
    if gathering then
      redis.call('HINCRBY', KEYS[3], ARGV[i], ARGV[i + 1])
    else
      redis.call('HINCRBY', ARGV[i], 'spent', ARGV[i + 1])
      redis.call('PEXPIRE', ARGV[i], 3456000000)
    end
  end
end
if gathering then
  redis.call('HSET', KEYS[2], 'a:' .. ARGV[1], 1)
  if new then redis.call('HSETNX', KEYS[2], ARGV[2] == 'shared' and 'shared' or 'first', now_ms()) end
end
return 1
