-- KEYS: generation, then records. ARGV: the generation ('' while it is gathered), how long they are kept in ms.
-- These exchanges are in the ledger's part already: closed, so that no late settlement books them once more.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  redis.call('HSET', KEYS[i], 'state', 'closed')
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
return 1
