-- What the scripts share; comes after clock.lua and before each of them. The same arithmetic as core/bucket.py,
-- and the same life of a reservation as core/reservations.py: one test drives both.
-- Numbers are doubles: every count stops at MOST, the last integer that they hold exactly; products that could
-- pass it are either split or only compared with something below it.
-- The first write of each script is one that Redis refuses when out of memory, so that it acts whole or not at
-- all. All keys bear one hash tag; settlement reaches buckets that a record names, which share its slot.

local MOST = 9007199254740991
local LONGEST_TTL = 34560000000 -- 400 days
-- A day: REFILLED_KEPT_AT_LEAST_MS in core/bucket.py. A bucket that was forgotten counts what it gave back from
-- zero, so none is within this time of a taking, and later the count is not relied on.
local KEPT_AT_LEAST = 86400000

local function saturated(units)
  return math.min(math.max(units, 0), MOST)
end

-- Fields of a reservation's record. Where somebody else has written over it, there is none: it was lost like any
-- other, and may not keep those behind it waiting.
local function record_of(key, ...)
  local known = redis.pcall('HMGET', key, ...)
  if not known.err then return known end
  if not string.find(known.err, 'WRONGTYPE', 1, true) then error(known.err, 0) end
  redis.call('DEL', key)
  return {}
end

-- Sets the version where there is none. Returns 1 then: the database is new, or lost its data.
local function check_schema(key, version)
  local found = redis.call('GET', key)
  if found == version then return 0 end
  if found then
    error('GWSCHEMA the budgets in Redis have schema ' .. found .. ', this gateway knows ' .. version, 0)
  end
  redis.call('SET', key, version)
  return 1
end

-- spent, fraction, at: what is still gone from a refilled bucket. rate = whole * period + rest.
local function drained(spent, fraction, at, rate, whole, rest, period, now)
  if at - now > period then at = now end
  if spent == 0 then return 0, 0, math.max(now, at) end
  local elapsed = now - at
  if elapsed <= 0 then return spent, fraction, at end
  local part = elapsed % period
  local periods = (elapsed - part) / period
  if periods * rate >= spent then return 0, 0, now end
  local sum = part * rest + fraction
  local back = periods * rate + part * whole + math.floor(sum / period)
  if back >= spent then return 0, 0, now end
  return spent - back, sum % period, now
end

local function put_refilled(key, spent, fraction, at, given_back, rate, period)
  if spent == 0 then fraction = 0 end
  redis.call('HSET', key, 'spent', spent, 'fraction', fraction, 'at', at, 'given_back', given_back)
  redis.call('PEXPIRE', key, math.min(math.ceil(spent * period / rate) + KEPT_AT_LEAST, LONGEST_TTL))
end

-- c: a charge (below). spent, fraction, given_back: of a refilled bucket that is drained until `at`; the same
-- after `actual` took the place of the amount: `corrected` in core/bucket.py. Of pairs `whole, part` the value
-- is whole - part / period.
local function corrected(c, actual, spent, fraction, at, given_back)
  local amount, period, rate = c[3], c[4], c[5]
  if actual >= amount then
    return saturated(spent + (actual - amount)), fraction, given_back
  end
  if at < c[9] then return spent, fraction, given_back end
  local elapsed = at - c[9]
  local part = elapsed % period
  local periods = (elapsed - part) / period
  local most = math.max(amount, c[10])
  if periods * rate >= most then return spent, fraction, given_back end
  local gone = periods * rate + part * c[6] + math.floor(part * c[7] / period)
  if gone >= most then return spent, fraction, given_back end
  local beyond = part * c[7] % period
  local back, less = amount - gone, beyond
  if elapsed < KEPT_AT_LEAST then
    local given = given_back - c[12]
    if given < 0 then given = given + MOST + 1 end
    local left, off = c[10] - given - gone, c[11] + beyond
    if off >= period then left, off = left - 1, off - period end
    if left > back or (left == back and off < less) then back, less = left, off end
  end
  if back > amount - actual then back, less = amount - actual, 0 end
  if back > spent or (back == spent and less < fraction) then back, less = spent, fraction end
  if back <= 0 then return spent, fraction, given_back end
  spent, fraction = spent - back, fraction - less
  if fraction < 0 then spent, fraction = spent + 1, fraction + period end
  if given_back > MOST - back then
    return spent, fraction, given_back - (MOST - back) - 1
  end
  return spent, fraction, given_back + back
end

-- Nine arguments per limit from argument `a` on: unit, enforced, amount, capacity, period, and then for a
-- refilled bucket rate, whole, rest, 0 with one key; for a window (period 0) the four edges of the windows
-- before, now and next, with three keys; for concurrent requests (period -1) zeros, with one key.
-- Calendar windows are those of `at`, an instant of what is booked afterwards; 0: of now.
local function find(k, a, now, at)
  local found = {}
  if at == 0 then at = now end
  while ARGV[a] do
    local f = {unit = tonumber(ARGV[a]), enforced = ARGV[a + 1] == '1', amount = tonumber(ARGV[a + 2]),
      capacity = tonumber(ARGV[a + 3]), period = tonumber(ARGV[a + 4]), set_aside = 0, fraction = 0,
      rate = 0, whole = 0, rest = 0, window_end = 0, at = 0, given_back = 0}
    local p, q, r, s = tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7]), tonumber(ARGV[a + 8])
    if f.period > 0 then
      f.key, f.rate, f.whole, f.rest = KEYS[k], p, q, r
      k = k + 1
      local h = redis.call('HMGET', f.key, 'spent', 'fraction', 'at', 'given_back')
      f.spent, f.fraction, f.at = drained(tonumber(h[1] or 0), tonumber(h[2] or 0), tonumber(h[3] or now),
        p, q, r, f.period, now)
      f.given_back = tonumber(h[4] or 0)
      f.set_back = f.at < tonumber(h[3] or 0)
    elseif f.period < 0 then
      f.key, f.spent = KEYS[k], 0
      k = k + 1
      f.set_aside = tonumber(redis.call('HGET', f.key, 'set_aside') or 0)
    else
      if at < p or at >= s then
        error('GWCLOCK the clocks of the gateway and of Redis differ by more than a window', 0)
      end
      if at < q then f.key, f.window_end = KEYS[k], q
      elseif at < r then f.key, f.window_end = KEYS[k + 1], r
      else f.key, f.window_end = KEYS[k + 2], s end
      k = k + 3
      local h = redis.call('HMGET', f.key, 'spent', 'set_aside')
      f.spent, f.set_aside, f.new = tonumber(h[1] or 0), tonumber(h[2] or 0), not (h[1] or h[2])
    end
    found[#found + 1] = f
    a = a + 9
  end
  return found
end

-- 0, the instant, and per limit: spent, set aside, fraction. What a decision is made from.
local function answer_of(found, now)
  local answer = {0, now}
  for _, f in ipairs(found) do
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3] = f.spent, f.set_aside, f.fraction
  end
  return answer
end

-- A charge: key, unit, amount, period, rate, whole, rest, window_end, and of a refilled bucket as it was right
-- after the taking: at, spent, fraction, given_back.
local function is_dollars(c) -- of a calendar window: what is computed anew from ledgers
  return c[2] == 4 and c[4] == 0
end

local function settle_charge(c, actual, now, still_open)
  local key, amount, period = c[1], c[3], c[4]
  if period < 0 then
    -- Without an end of its own: it is there as long as somebody is open in it.
    if still_open and amount > 0 and redis.call('HINCRBY', key, 'set_aside', -amount) <= 0 then
      redis.call('DEL', key)
    end
    return
  end
  if amount == 0 and actual == 0 then return end
  if period > 0 then
    local h = redis.call('HMGET', key, 'spent', 'fraction', 'at', 'given_back')
    local spent, fraction, at = drained(tonumber(h[1] or 0), tonumber(h[2] or 0), tonumber(h[3] or now),
      c[5], c[6], c[7], period, now)
    local given_back
    spent, fraction, given_back = corrected(c, actual, spent, fraction, at, tonumber(h[4] or 0))
    put_refilled(key, spent, fraction, at, given_back, c[5], period)
    return
  end
  local h = redis.call('HMGET', key, 'spent', 'set_aside')
  local spent, set_aside = tonumber(h[1] or 0), tonumber(h[2] or 0)
  if still_open then
    spent, set_aside = saturated(spent + actual), saturated(set_aside - amount)
  else
    spent = saturated(spent + (actual - amount))
  end
  redis.call('HSET', key, 'spent', spent, 'set_aside', set_aside)
  redis.call('PEXPIRE', key, math.max(c[8] - now, 0) + 604800000)
end
