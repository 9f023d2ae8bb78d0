-- One stream at one moment, with a page of its entries. Changes nothing.
--
-- KEYS: stream, meta hash. ARGV: first seq wanted ('' for the retained ones), epoch it belongs to ('' for any),
--   most entries, most bytes.
-- Reply: nothing if there is no stream; else epoch, tail, floor, low, ended, reason, owner, then the entries.
local function whole(number)
  return string.format('%.0f', number)
end

if redis.call('XLEN', KEYS[1]) == 0 then return {} end
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'tail', 'floor', 'low', 'ended', 'reason', 'owner')
local epoch, tail, floor = meta[1], tonumber(meta[2]), tonumber(meta[3])
if not epoch then return {} end
local reply = {epoch, meta[2], meta[3], meta[4], meta[5] and '1' or '0', meta[6] or '', meta[7] or ''}
if ARGV[2] ~= '' and ARGV[2] ~= epoch then return reply end

local seq = math.max(ARGV[1] == '' and floor or tonumber(ARGV[1]), tonumber(meta[4]))
local left, room = tonumber(ARGV[3]), tonumber(ARGV[4])
local last = epoch .. '-' .. whole(tail)
while left > 0 and room > 0 and seq <= tail do
  local chunk = redis.call('XRANGE', KEYS[1], epoch .. '-' .. whole(seq), last, 'COUNT', math.min(left, 32))
  if #chunk == 0 then break end
  for _, entry in ipairs(chunk) do
    reply[#reply + 1] = entry
    room = room - #entry[2][6]
    left = left - 1
    seq = seq + 1
    if room <= 0 then break end
  end
end
return reply
