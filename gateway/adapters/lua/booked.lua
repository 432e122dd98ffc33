-- KEYS: what one ledger is to book. ARGV: ids of its entries that the ledger has now.
for _, id in ipairs(ARGV) do redis.call('HDEL', KEYS[1], id) end
return 0
