-- Append a batch to the streams of one or more runs. May be repeated: what a writer has stored is skipped by number.
--
-- KEYS: per run its stream and its meta hash; then, if an entry is an orphan END, the owner's lease.
-- ARGV: writer, owns (1: the writer becomes the owner), maxlen, max bytes, ttl ms, grace ms, push limit (negative: no
--   pushes); per run: the epoch and the last number that this writer knows to be stored ('' and 0: none), heads, body.
--   Heads: "number,kind,event bytes,data bytes" per entry, the next after another comma; the body has the event names
--   and the data (or the reason) one after the other. Kind: 0 event, 1 END, 2 orphan END.
--   An orphan END has the owner that must be gone in place of the event name; its bounds are left as they are.
-- Reply, per run: status (0 stored, 1 ended before, 2 error), last number stored, text (the reason, or the error),
--   epoch, tail.
local writer, owns = ARGV[1], ARGV[2] == '1'
local maxlen, maxbytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local ttl, grace, pushlimit = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local EVENT, ORPHAN = 0, 2
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local number_of_writer = 'n:' .. writer
local FIELDS = {
  'epoch', 'tail', 'floor', 'low', 'bytes', 'ended', 'mark', 'mark_at', 'expires_at', 'cleaned', 'owner',
  number_of_writer
}

local function whole(number)
  return string.format('%.0f', number)
end

-- Whether a stock bridge ended the stream, which keeps no record of it.
local function has_stock_end(stream)
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local named = {}
  for at = 1, newest and #newest[2] or 0, 2 do named[newest[2][at]] = newest[2][at + 1] end
  return named.kind == 'end' and not named.w
end

local function load(stream, meta, known_epoch, known_last)
  local length = redis.pcall('XLEN', stream)
  if type(length) == 'table' then return nil, length.err end
  local found = redis.pcall('HMGET', meta, unpack(FIELDS))
  if found.err then return nil, found.err end
  if length > 0 and found[1] then
    local last = tonumber(found[12] or 0)
    -- A server that came back without its last writes: these ids were read already, and must not be given twice.
    local is_forgetful = found[1] == known_epoch and last < known_last and not found[6]
    if not is_forgetful then
      return {
        epoch = found[1], tail = tonumber(found[2]), floor = tonumber(found[3]), low = tonumber(found[4]),
        bytes = tonumber(found[5]), ended = found[6], mark = tonumber(found[7]), mark_at = tonumber(found[8]),
        expires_at = tonumber(found[9]), cleaned = found[10], owner = found[11], last = last
      }
    end
    redis.call('DEL', stream)
  end
  -- Nothing there, or only what an eviction or a lost write left behind: a new stream.
  redis.call('DEL', meta)
  local ended = length > 0 and has_stock_end(stream)
  return {
    epoch = whole(tonumber(clock[1]) * 1000000 + tonumber(clock[2])), tail = -1, floor = 0, low = 0, bytes = 0,
    ended = ended, mark = -1, mark_at = now, expires_at = 0, cleaned = false, owner = false, last = 0, is_new = true
  }
end

-- The first seq from which the data fit the byte limit; the newest event always stays.
local function fitting(stream, state, newest)
  local seq = state.low
  while seq < newest do
    local chunk = redis.call('XRANGE', stream, state.epoch .. '-' .. whole(seq), '+', 'COUNT', 8)
    if #chunk == 0 then return seq end
    for _, entry in ipairs(chunk) do
      local fields = entry[2]
      -- A stock bridge's entry does not say how many bytes there were with it.
      if seq >= newest or fields[10] and state.bytes - tonumber(fields[10]) + #fields[6] <= maxbytes then return seq end
      seq = seq + 1
    end
  end
  return newest
end

-- Returns the fields that changed, and their values.
local function trim(stream, state)
  local newest = state.ended and state.tail - 1 or state.tail
  local fit = state.low
  if state.bytes > maxbytes then fit = fitting(stream, state, newest) end
  local changed = {}
  local floor = math.max(state.floor, fit, newest - maxlen + 1)
  if floor > state.floor then
    state.floor = floor
    changed = {'floor', whole(floor)}
  end
  local low = math.max(state.low, grace > 0 and fit or state.floor)
  if now - state.mark_at >= grace then
    -- All up to the mark is older than the grace that attached readers have.
    low = math.max(low, math.min(state.floor, state.mark + 1))
    state.mark, state.mark_at = state.tail, now
    for _, value in ipairs({'mark', whole(state.mark), 'mark_at', whole(now)}) do changed[#changed + 1] = value end
  end
  if low > state.low then
    redis.call('XTRIM', stream, 'MINID', '=', state.epoch .. '-' .. whole(low))
    state.low = low
    changed[#changed + 1] = 'low'
    changed[#changed + 1] = whole(low)
  end
  return changed
end

local function save(stream, meta, state, values, is_orphan)
  local function put(field, value)
    values[#values + 1] = field
    values[#values + 1] = value
  end
  put('tail', whole(state.tail))
  put('bytes', whole(state.bytes))
  if state.is_new then
    put('epoch', state.epoch)
    for _, field in ipairs({'floor', 'low', 'mark', 'mark_at'}) do put(field, whole(state[field])) end
  end
  if state.ended then
    put('ended', '1')
    put('reason', state.reason)
  end
  if state.last > 0 then put(number_of_writer, whole(state.last)) end
  if owns and state.owner ~= writer then put('owner', writer) end
  local due = ttl > 0 and not is_orphan and not state.cleaned and state.expires_at - now < ttl * 0.9
  if due then put('expires_at', whole(now + ttl)) end
  redis.call('HSET', meta, unpack(values))
  if due then
    redis.call('PEXPIREAT', stream, whole(now + ttl))
    redis.call('PEXPIREAT', meta, whole(now + ttl))
  end
end

-- "event EPOCH FIRST FLOOR HEADS" NEWLINE BODY, as they came; or only "tail EPOCH TAIL FLOOR".
local function push(stream, state, first, heads, body)
  local floor, message = whole(state.floor), nil
  if heads then
    -- One concatenation: the server copies and hashes every string that is made on the way.
    message = 'event ' .. state.epoch .. ' ' .. whole(first) .. ' ' .. floor .. ' ' .. heads .. '\n' .. body
  else
    message = 'tail ' .. state.epoch .. ' ' .. whole(state.tail) .. ' ' .. floor .. '\n'
  end
  redis.pcall('PUBLISH', stream, message)
end

local function is_refused(state, kind, event)
  if state.ended then return true end
  return kind == ORPHAN and (state.owner ~= event or redis.call('EXISTS', KEYS[#KEYS]) == 1)
end

-- Whether somebody who keeps no such numbers, a stock bridge, went on with the stream. Its ids are contiguous then.
local function catch_up(stream, state)
  local newest = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local epoch, seq = string.match(newest and newest[1] or '', '^(%d+)-(%d+)$')
  if epoch ~= state.epoch or tonumber(seq) <= state.tail then return false end
  state.tail = tonumber(seq)
  local fields = newest[2]
  for at = 1, #fields, 2 do
    if fields[at] == 'kind' and fields[at + 1] == 'end' then state.ended, state.reason = true, 'done' end
  end
  return true
end

local function add(stream, state, id, kind, event, data)
  if kind == EVENT then
    return redis.pcall('XADD', stream, id, 'kind', 'event', 'event', event, 'data', data,
      'w', writer, 'b', state.bytes + #data)
  end
  return redis.pcall('XADD', stream, id, 'kind', 'end', 'event', '', 'data', 'null',
    'w', writer, 'b', state.bytes, 'reason', data)
end

local function add_first(stream, state, kind, event, data)
  local function attempt()
    return add(stream, state, state.epoch .. '-' .. whole(state.tail + 1), kind, event, data)
  end
  local added = attempt()
  if type(added) == 'table' and catch_up(stream, state) and not state.ended then return attempt() end
  return added
end

local function append(stream, meta, known_epoch, known_last, heads, body)
  local state, problem = load(stream, meta, known_epoch, known_last)
  if not state then return {2, 0, problem, '', 0} end
  local parts = cjson.decode('[' .. heads .. ']')
  local is_orphan = parts[2] == ORPHAN
  local behind_it = state.epoch .. '-*'
  local status, stored, at = 0, 0, 1
  for index = 1, #parts, 4 do
    local number, kind, middle = parts[index], parts[index + 1], at + parts[index + 2]
    local behind = middle + parts[index + 3]
    if kind == ORPHAN or number > state.last then
      local event, data = string.sub(body, at, middle - 1), string.sub(body, middle, behind - 1)
      if is_refused(state, kind, event) then
        status, problem = 1, redis.call('HGET', meta, 'reason')
        break
      end
      local added
      if stored == 0 then
        added = add_first(stream, state, kind, event, data)
      else
        added = add(stream, state, behind_it, kind, event, data)
      end
      if type(added) == 'table' then
        status, problem = 2, added.err
        if state.ended then status, problem = 1, state.reason end
        break
      end
      stored = stored + 1
      state.tail = state.tail + 1
      if kind == EVENT then
        state.bytes = state.bytes + #data
      else
        state.ended, state.reason = true, data
      end
      if kind ~= ORPHAN then state.last = number end
    end
    at = behind
  end
  if stored > 0 then
    save(stream, meta, state, is_orphan and {} or trim(stream, state), is_orphan)
    if pushlimit >= 0 then
      -- As it came, if all of it was stored.
      local is_whole = stored * 4 == #parts and not is_orphan and #body <= pushlimit
      push(stream, state, state.tail - stored + 1, is_whole and heads, body)
    end
  end
  return {status, state.last, problem or '', state.epoch, state.tail}
end

local replies = {}
for at = 8, #ARGV, 4 do
  local stream, meta = KEYS[#replies * 2 + 1], KEYS[#replies * 2 + 2]
  replies[#replies + 1] = append(stream, meta, ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3])
end
return replies
