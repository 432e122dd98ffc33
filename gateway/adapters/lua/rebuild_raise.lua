-- KEYS: generation, gathering, staged. ARGV: a generation, or ''. Takes it away, or where none is named whichever is
-- there: the counters are to be rebuilt. Another one than the named stays: it is another server's, or a later one.
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
