-- KEYS: generation, gathering, staged, ledgers. ARGV: replica, ledger, the generation ('' while it is gathered), then
-- keys of windows, each with what the ledger says was spent.
-- Adds a ledger's part once, whoever brings it and however often: to what is gathered, or, where the fence has been
-- opened without it, to the counters. Returns 1 where the part is in.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[3] then return 0 end
local gathering = ARGV[3] == ''
if gathering and redis.call('HEXISTS', KEYS[2], 'begun') == 0 then return 0 end
local new = redis.call('SADD', KEYS[4], ARGV[2]) == 1
if new then
  for i = 4, #ARGV, 2 do
    if gathering then
      redis.call('HINCRBY', KEYS[3], ARGV[i], ARGV[i + 1])
    else
      redis.call('HINCRBY', ARGV[i], 'spent', ARGV[i + 1])
      redis.call('PEXPIRE', ARGV[i], 3456000000)
    end
  end
end
if gathering then redis.call('HSET', KEYS[2], 'a:' .. ARGV[1], 1) end
return 1
