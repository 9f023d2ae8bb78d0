-- Store absolute rows, each only over a lower number.
--
-- KEYS: totals, when each was written, then buckets. ARGV: the rows' number, how many seconds a bucket stays, then for
-- each row: its place among KEYS, its field, its counts.
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
for i = 3, #ARGV, 3 do
  local place, field = tonumber(ARGV[i]), ARGV[i + 1]
  local stored = redis.call('HGET', KEYS[place], field)
  if not stored or tonumber(string.match(stored, '^%d+')) < tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[place], field, ARGV[1] .. ' ' .. ARGV[i + 2])
    if place == 1 then
      redis.call('ZADD', KEYS[2], now, field)
    else
      redis.call('EXPIRE', KEYS[place], ARGV[2])
    end
  end
end
