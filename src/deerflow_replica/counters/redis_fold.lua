-- Write base rows and mark what they have now, unless anything changed since it was read.
--
-- KEYS: totals, when each was written, what was folded, when. ARGV: how many base rows, for each: its field, what it
-- was ('' for none), its counts now; then for each row: its field, what it was, what was folded of it ('' for nothing).
-- Reply: 1, or 0 where something had changed and nothing was done.
local bases, rows = {}, {}
local last = 1 + 3 * tonumber(ARGV[1])
for i = 2, last, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
for i = last + 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then return 0 end
  if (redis.call('HGET', KEYS[3], ARGV[i]) or '') ~= ARGV[i + 2] then return 0 end
end
local clock = redis.call('TIME')
for i = 2, last, 3 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
for i = last + 1, #ARGV, 3 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[4], clock[1], ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end
return 1
