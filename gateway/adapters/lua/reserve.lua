-- KEYS: record, leases, schema, then those of the limits. ARGV: id, lease in ms, how long a refusal is kept in
-- ms, schema version, what the ledger is told if its lease ends, the instant in whose windows it counts (0: now),
-- then the limits. Sets aside on all limits or on none. Asked again, answers as before; for an id that was closed before it came, the answer is empty and nothing
-- is held.
local known = record_of(KEYS[1], 'state', 'answer')
if known[2] then return cmsgpack.unpack(known[2]) end
if known[1] then return {} end

local now = now_ms()
local new_database = check_schema(KEYS[3], ARGV[4])
local found = find(4, 7, now, tonumber(ARGV[6]))
local answer = answer_of(found, now)

for _, f in ipairs(found) do
  if f.enforced and f.amount > 0 and f.amount > f.capacity - f.spent - f.set_aside then
    redis.call('HSET', KEYS[1], 'state', 'refused', 'answer', cmsgpack.pack(answer))
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    for _, each in ipairs(found) do -- so that it drains from now on, though nothing is taken
      if each.set_back then
        put_refilled(each.key, each.spent, each.fraction, each.at, each.given_back, each.rate, each.period)
      end
    end
    answer[1] = new_database
    return answer
  end
end

local charges = {}
for i, f in ipairs(found) do
  charges[i] = {f.key, f.unit, f.amount, f.period, f.rate, f.whole, f.rest, f.window_end,
    f.at, saturated(f.spent + f.amount), f.fraction, f.given_back}
  if f.amount > 0 then
    if f.period > 0 then
      put_refilled(f.key, saturated(f.spent + f.amount), f.fraction, f.at, f.given_back, f.rate, f.period)
    else
      redis.call('HSET', f.key, 'set_aside', saturated(f.set_aside + f.amount))
      if f.new then redis.call('PEXPIRE', f.key, math.max(f.window_end - now, 0) + 604800000) end
    end
  end
end
redis.call('HSET', KEYS[1], 'state', 'open', 'answer', cmsgpack.pack(answer), 'charges', cmsgpack.pack(charges),
  'said', ARGV[5])
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
answer[1] = new_database
return answer
