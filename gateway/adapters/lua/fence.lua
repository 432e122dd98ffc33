-- Comes before reserve and close where they touch a dollar window, and before sweep: these act only under the
-- generation that the gateway knows. It is missing where the counters were lost, and another where they were rebuilt.
-- The last key and the last argument are the fence's; what follows does not see them.
local generation_key, generation = table.remove(KEYS), table.remove(ARGV)
if redis.call('GET', generation_key) ~= generation then
  error('GWFENCE the counters of this generation are gone', 0)
end
