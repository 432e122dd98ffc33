-- KEYS: generation, ledgers. ARGV: generation ('' while it is gathered). What is in: ledgers, and how far the chains
-- of those go that are shipped to the shared one.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return {} end
return redis.call('SMEMBERS', KEYS[2])
