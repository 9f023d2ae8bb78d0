-- Delete a stream, now or later. A later time replaces an earlier one and is not put off by publishing.
--
-- KEYS: stream, meta hash. ARGV: delay in ms, whether to push (1 or 0). Reply: 1 if there was something.
local delay = tonumber(ARGV[1])
local epoch = redis.call('HGET', KEYS[2], 'epoch')
local there = redis.call('EXISTS', KEYS[1]) == 1
if delay == 0 or not there then
  redis.call('UNLINK', KEYS[1], KEYS[2])
  if there and ARGV[2] == '1' then redis.pcall('PUBLISH', KEYS[1], 'gone ' .. (epoch or '0') .. '\n') end
else
  local clock = redis.call('TIME')
  local at = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) + delay)
  redis.call('HSET', KEYS[2], 'cleaned', at)
  redis.call('PEXPIREAT', KEYS[1], at)
  redis.call('PEXPIREAT', KEYS[2], at)
end
return there and 1 or 0
