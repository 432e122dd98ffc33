-- KEYS: generation, gathering, staged. Takes the generation away: the counters are to be rebuilt.
return redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
