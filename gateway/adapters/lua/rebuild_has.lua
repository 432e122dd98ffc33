-- KEYS: generation, ledgers. ARGV: generation, ledger. Whether this generation's counters have the ledger in them.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('SISMEMBER', KEYS[2], ARGV[2])
