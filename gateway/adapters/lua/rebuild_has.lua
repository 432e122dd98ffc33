-- KEYS: generation, ledgers, which generations they were gathered after. ARGV: generation, ledger, the last generation
-- that the replica wrote under. Whether this generation's counters have the ledger in them: 2 where they have it as it
-- was before the replica wrote there.
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 0 then return 0 end
if ARGV[3] == '' or ARGV[3] == ARGV[1] or redis.call('SISMEMBER', KEYS[3], ARGV[3]) == 1 then return 1 end
return 2
