-- Read threads, and make those that nobody has, in one step.
--
-- KEYS: rows, the user's threads by update, by creation, those that expire, all that expire.
-- ARGV: the new row's change, the seconds and microseconds of its life (or '' twice), whether it may expire (1 or 0),
-- the rest of its text, then the thread ids.
-- Reply: the time; for each id its row, or nothing where it was made now, as one text.
local LAST_SECOND = 253402300799
local clock = redis.call('TIME')
local seconds, micros = tonumber(clock[1]), tonumber(clock[2])
local now = string.format('%d%06d', seconds, micros)
local order = string.format('%016x:', seconds * 1000000 + micros)
local ttl, expires = '-', '-'
if ARGV[2] ~= '' then
  -- In two parts: a double has no room for the microseconds of the far future.
  local sum = micros + tonumber(ARGV[3])
  seconds = seconds + tonumber(ARGV[2]) + math.floor(sum / 1000000)
  micros = sum % 1000000
  if seconds > LAST_SECOND then seconds, micros = LAST_SECOND, 999999 end
  ttl = string.format('%.0f%06d', tonumber(ARGV[2]), tonumber(ARGV[3]))
  expires = string.format('%.0f%06d', seconds, micros)
end
local row = table.concat({ARGV[1], now, now, '1', ttl, expires, '-'}, ' ') .. ARGV[5]
local ids = {}
for i = 6, #ARGV do ids[#ids + 1] = ARGV[i] end
local rows = redis.call('HMGET', KEYS[1], unpack(ids))
for i, id in ipairs(ids) do
  if not rows[i] then
    redis.call('HSET', KEYS[1], id, row)
    redis.call('ZADD', KEYS[2], 0, order .. id)
    redis.call('ZADD', KEYS[3], 0, order .. id)
    if expires ~= '-' and ARGV[4] == '1' then
      redis.call('ZADD', KEYS[4], expires, id)
      redis.call('ZADD', KEYS[5], expires, id)
    end
    rows[i] = ''
  end
end
return {now, table.concat(rows, '\30')}
