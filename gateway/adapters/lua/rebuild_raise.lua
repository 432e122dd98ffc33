-- KEYS: generation, gathering, staged, limits whose counters stay. ARGV: a generation, or '', then ids of limits. Takes
-- the generation away, or where none is named whichever is there: the counters are to be rebuilt, those of these limits
-- to no less than they say. Another one than the named stays: it is another server's, or a later one.
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local gone = redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
for i = 2, #ARGV do redis.call('SADD', KEYS[4], ARGV[i]) end
return gone
