-- What one replica has to say, in its order: claims it lets go of, claims it asks for, news, good-bye.
-- KEYS: stream, beats, then the claims of each holder. ARGV: replica, entry or '', most entries, the stream's
-- life in ms, after how many ms of silence a replica's claims are void, whether it leaves; then for each holder
-- its id, how many claims, and for how many ms; 0 ms: it lets go of them.
-- Returns for each holder that asks: '' where all are its own now, else who holds the first that was taken; and
-- where any asked, the id of the stream's last entry before this one, '' where there is none.

local replica, entry, silent = ARGV[1], ARGV[2], tonumber(ARGV[5])

-- Who holds a claim that `mine` cannot have, or nil. What a dead replica claimed is anybody's.
local function other_holder(key, mine)
  local value = redis.call('GET', key)
  if not value or value == mine then return nil end
  local space = string.find(value, ' ', 1, true)
  local beat = redis.call('HGET', KEYS[2], string.sub(value, 1, space - 1))
  if beat and now_ms() - beat > silent then return nil end
  return string.sub(value, space + 1)
end

local answers, first = {}, 3
for at = 7, #ARGV, 3 do
  local mine, last, ms = replica .. ' ' .. ARGV[at], first + ARGV[at + 1] - 1, ARGV[at + 2]
  if ms == '0' then
    for i = first, last do
      if redis.call('GET', KEYS[i]) == mine then redis.call('DEL', KEYS[i]) end
    end
  else
    local taken
    for i = first, last do taken = taken or other_holder(KEYS[i], mine) end
    if not taken then
      for i = first, last do redis.call('SET', KEYS[i], mine, 'PX', ms) end
    end
    answers[#answers + 1] = taken or ''
  end
  first = last + 1
end
if #answers > 0 then
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  answers[#answers + 1] = last[1] and last[1][1] or ''
end
if entry ~= '' then
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'e', entry)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if ARGV[6] == '1' then redis.call('HDEL', KEYS[2], replica) end
return answers
