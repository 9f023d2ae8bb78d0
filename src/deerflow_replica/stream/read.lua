-- One stream at one moment, with a page of its entries. Changes nothing.
--
-- KEYS: stream, meta hash. ARGV: first seq wanted ('' for the retained ones), epoch it belongs to ('' for any),
--   most entries, most bytes. With 'after' for an epoch the first is an id, and what follows it is wanted.
-- Reply: nothing if there is no stream; else epoch, tail, floor, low, ended, reason, owner, then the entries.
-- A stream that a stock bridge began has no such numbers: 'stock', first id, last id, id of the last event or '',
--   ended, reason, whether it was never trimmed, owner; then entries, if they were asked for with 'after'.
local stream = KEYS[1]

local function whole(number)
  return string.format('%.0f', number)
end

local function field(entry, name)
  local fields = entry[2]
  for at = 1, #fields, 2 do
    if fields[at] == name then return fields[at + 1] end
  end
  return nil
end

local function is_end(entry)
  return field(entry, 'kind') == 'end' or field(entry, 'event') == '__end__'
end

local function is_stock(entries)
  return #entries > 0 and not field(entries[1], 'w')
end

local function was_trimmed()
  local info = redis.pcall('XINFO', 'STREAM', stream)
  local length, added
  for at = 1, #info, 2 do
    if info[at] == 'length' then length = info[at + 1] end
    if info[at] == 'entries-added' then added = info[at + 1] end
  end
  return not length or length ~= added
end

-- The entries after `id` on the way to `last`, appended to the reply.
local function page(reply, id, last, left, room)
  while left > 0 and room > 0 do
    local chunk = redis.call('XRANGE', stream, '(' .. id, last, 'COUNT', math.min(left, 32))
    if #chunk == 0 then return end
    for _, entry in ipairs(chunk) do
      reply[#reply + 1] = entry
      id = entry[1]
      left = left - 1
      room = room - #(field(entry, 'data') or '')
      if room <= 0 then return end
    end
  end
end

local function by_id(meta)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 2)
  local ended = is_end(newest[1])
  local event = ended and newest[2] or newest[1]
  if is_end(event) then event = {''} end
  local reason = ended and (field(newest[1], 'reason') or 'done') or ''
  local reply = {
    'stock', first[1], newest[1][1], event[1], ended and '1' or '0', reason, was_trimmed() and '0' or '1', meta[7] or ''
  }
  if ARGV[2] == 'after' then page(reply, ARGV[1], '+', tonumber(ARGV[3]), tonumber(ARGV[4])) end
  return reply
end

if redis.call('XLEN', stream) == 0 then return {} end
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'tail', 'floor', 'low', 'ended', 'reason', 'owner')
local epoch = meta[1]
if ARGV[2] == 'after' then return by_id(meta) end
if not epoch then
  if is_stock(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)) then return by_id(meta) end
  return {}
end
if is_stock(redis.call('XREVRANGE', stream, '(' .. epoch .. '-' .. meta[4], '-', 'COUNT', 1)) then
  return by_id(meta)
end

local tail, ended, reason = meta[2], meta[5], meta[6]
-- A stock bridge may have gone on after ours: its ids are contiguous then.
if #redis.call('XRANGE', stream, '(' .. epoch .. '-' .. tail, '+', 'COUNT', 1) > 0 then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local ms, seq = string.match(newest[1], '^(%d+)-(%d+)$')
  if ms == epoch then
    tail = seq
    if is_end(newest) then ended, reason = '1', field(newest, 'reason') or 'done' end
  end
end
local reply = {epoch, tail, meta[3], meta[4], ended and '1' or '0', reason or '', meta[7] or ''}
if ARGV[2] ~= '' and ARGV[2] ~= epoch then return reply end

local seq = math.max(tonumber(ARGV[1] == '' and meta[3] or ARGV[1]), tonumber(meta[4]))
local last = epoch .. '-' .. tail
local left, room = tonumber(ARGV[3]), tonumber(ARGV[4])
while left > 0 and room > 0 and seq <= tonumber(tail) do
  local chunk = redis.call('XRANGE', stream, epoch .. '-' .. whole(seq), last, 'COUNT', math.min(left, 32))
  if #chunk == 0 then break end
  for _, entry in ipairs(chunk) do
    reply[#reply + 1] = entry
    room = room - #(entry[2][6] or '')
    left = left - 1
    seq = seq + 1
    if room <= 0 then break end
  end
end
return reply
