-- END once more, for a stream whose server came back without it. Nothing is created where no stream is.
--
-- KEYS: stream, meta hash. ARGV: epoch and seq of END, reason, writer, whether to push (1 or 0). Reply: 1 if it was missing.
--   END keeps its id. If events before it are lost too, newcomers get END alone, and readers of the rest a gap.
local found = redis.call('HMGET', KEYS[2], 'epoch', 'tail', 'floor', 'bytes', 'ended')
if redis.call('XLEN', KEYS[1]) == 0 or found[1] ~= ARGV[1] or found[5] then return 0 end
local tail, seq = tonumber(found[2]), tonumber(ARGV[2])
if tail >= seq then return 0 end -- somebody writes it, and does not know that it ended

local id = ARGV[1] .. '-' .. ARGV[2]
local floor = found[3]
redis.call('XADD', KEYS[1], id, 'kind', 'end', 'event', '', 'data', 'null', 'w', ARGV[4], 'b', found[4], 'reason', ARGV[3])
if tail < seq - 1 then
  floor = ARGV[2]
  redis.call('XTRIM', KEYS[1], 'MINID', '=', id)
end
redis.call('HSET', KEYS[2], 'tail', ARGV[2], 'ended', '1', 'reason', ARGV[3], 'floor', floor)
if floor == ARGV[2] then redis.call('HSET', KEYS[2], 'low', floor) end
if ARGV[5] == '1' then
  redis.pcall('PUBLISH', KEYS[1], 'tail ' .. ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. floor .. '\n')
end
return 1
