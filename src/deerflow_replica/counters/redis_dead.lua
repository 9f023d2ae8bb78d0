-- Rows that nobody wrote for a time, and the base rows of the same fields.
--
-- KEYS: totals, when each was written, what was folded. ARGV: that time in seconds, how many at most.
-- Reply: for each its field, its row, what was folded of it.
local clock = redis.call('TIME')
local last = string.format('%.6f', clock[1] + clock[2] / 1000000 - tonumber(ARGV[1]))
local found = {}
for _, field in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', last, 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = {field, redis.call('HGET', KEYS[1], field), redis.call('HGET', KEYS[3], field)}
end
return found
