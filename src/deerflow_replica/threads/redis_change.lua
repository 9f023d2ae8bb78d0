-- Replace one thread's row, and its places in the orders, if it still is what it was.
--
-- KEYS: rows, then the orders. ARGV: thread id, the change that its row has to name ('' for no row), the new row ('' for
-- none), then for each order: '-' to leave it, or the member that goes, the member that comes ('' for none), its score.
-- Reply: nothing, or the time and the row as it is (false for none).
local row = redis.call('HGET', KEYS[1], ARGV[1])
if (row and string.sub(row, 1, 16) or '') ~= ARGV[2] then
  local clock = redis.call('TIME')
  return {string.format('%d%06d', clock[1], clock[2]), row}
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
for i = 2, #KEYS do
  local gone, new, score = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  if gone ~= '' then redis.call('ZREM', KEYS[i], gone) end
  if new ~= '' then redis.call('ZADD', KEYS[i], score, new) end
end
return {}
