-- Threads that have expired, and tombstones past their time.
--
-- KEYS: rows, all that expire, tombstones. ARGV: how long a tombstone stays, in microseconds, how many of each at most.
-- Reply: id and row of each of the first, as one text, then of the second.
local clock = redis.call('TIME')
local now = string.format('%d%06d', clock[1], clock[2])
local function found(key, until_then)
  local reply = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', until_then, 'LIMIT', 0, ARGV[2])) do
    reply[#reply + 1] = id .. '\n' .. redis.call('HGET', KEYS[1], id)
  end
  return table.concat(reply, '\30')
end
return {found(KEYS[2], now), found(KEYS[3], string.format('%.0f', tonumber(now) - tonumber(ARGV[1])))}
