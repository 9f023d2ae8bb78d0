-- Which of these streams are not as a reader knows them. Changes nothing.
--
-- KEYS: per stream it and its meta hash. ARGV: per stream the epoch and the tail that are known, '' if there was none.
-- Reply: the numbers, from 1, of those that are new, longer, shorter or gone, or that cannot be read.
local function is_known(stream, meta, epoch, tail)
  local length = redis.pcall('XLEN', stream)
  if epoch == '' or length == 0 then return epoch == '' and length == 0 end
  local found = redis.pcall('HMGET', meta, 'epoch', 'tail')
  if found[1] ~= epoch or found[2] ~= tail then return false end
  -- A stock bridge goes on without a word in the hash.
  local behind = redis.pcall('XRANGE', stream, '(' .. epoch .. '-' .. tail, '+', 'COUNT', 1)
  return not behind.err and #behind == 0
end

local changed = {}
for at = 1, #KEYS, 2 do
  if not is_known(KEYS[at], KEYS[at + 1], ARGV[at], ARGV[at + 1]) then changed[#changed + 1] = (at + 1) / 2 end
end
return changed
