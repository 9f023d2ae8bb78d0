-- Drop rows that were folded long ago and not written since.
--
-- KEYS: totals, when each was written, what was folded, when. ARGV: how long ago, in seconds, how many at most.
-- Reply: how many were looked at.
local last = redis.call('TIME')[1] - tonumber(ARGV[1])
local fields = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', last, 'LIMIT', 0, ARGV[2])
for _, field in ipairs(fields) do
  redis.call('ZREM', KEYS[4], field)
  if not redis.call('ZSCORE', KEYS[2], field) then
    redis.call('HDEL', KEYS[1], field)
    redis.call('HDEL', KEYS[3], field)
  end
end
return #fields
