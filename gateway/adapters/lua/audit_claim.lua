-- KEYS: the claim. ARGV: replica, for how many ms, whether it is taken from another. Returns 1 where it is its own now.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and ARGV[3] == '0' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
