-- Append a batch to the streams of one or more runs. May be repeated: what a writer has stored is skipped by number.
--
-- KEYS: per run its stream and its meta hash; then, if an entry is of kind `orphan`, the owner's lease.
-- ARGV: writer, owns (1: the writer becomes the owner), maxlen, max bytes, ttl ms, grace ms, push limit (negative:
--   no pushes), runs;
--   per run: number of entries, the epoch and the last number that this writer knows to be stored ('' and 0: none);
--   per entry: number, kind (event|end|orphan), event name, data (or reason).
--   An orphan END has the owner that must be gone in place of the event name; its bounds are left as they are.
-- Reply, per run: status (0 stored, 1 ended before, 2 error), last number stored, text (the reason, or the error),
--   epoch, tail.
local writer, owns = ARGV[1], ARGV[2] == '1'
local maxlen, maxbytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local ttl, grace, pushlimit = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local runs = tonumber(ARGV[8])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local FIELDS = {'epoch', 'tail', 'floor', 'low', 'bytes', 'ended', 'mark', 'mark_at', 'expires_at', 'cleaned', 'owner'}

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
    local last = tonumber(redis.call('HGET', meta, 'n:' .. writer) or 0)
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
    ended = ended, mark = -1, mark_at = now, expires_at = 0, cleaned = false, owner = false, last = 0
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

local function trim(stream, state)
  local newest = state.ended and state.tail - 1 or state.tail
  local fit = state.low
  if state.bytes > maxbytes then fit = fitting(stream, state, newest) end
  state.floor = math.max(state.floor, fit, newest - maxlen + 1)
  local low = math.max(state.low, grace > 0 and fit or state.floor)
  if now - state.mark_at >= grace then
    -- All up to the mark is older than the grace that attached readers have.
    low = math.max(low, math.min(state.floor, state.mark + 1))
    state.mark, state.mark_at = state.tail, now
  end
  if low > state.low then
    redis.call('XTRIM', stream, 'MINID', '=', state.epoch .. '-' .. whole(low))
    state.low = low
  end
end

local function save(stream, meta, state, is_orphan)
  local values = {
    'epoch', state.epoch, 'tail', whole(state.tail), 'floor', whole(state.floor), 'low', whole(state.low),
    'bytes', whole(state.bytes), 'mark', whole(state.mark), 'mark_at', whole(state.mark_at)
  }
  if state.ended then
    values[#values + 1] = 'ended'
    values[#values + 1] = '1'
    values[#values + 1] = 'reason'
    values[#values + 1] = state.reason
  end
  if state.last > 0 then
    values[#values + 1] = 'n:' .. writer
    values[#values + 1] = whole(state.last)
  end
  if owns then
    values[#values + 1] = 'owner'
    values[#values + 1] = writer
  end
  local due = ttl > 0 and not is_orphan and not state.cleaned and state.expires_at - now < ttl * 0.9
  if due then
    values[#values + 1] = 'expires_at'
    values[#values + 1] = whole(now + ttl)
  end
  redis.call('HSET', meta, unpack(values))
  if due then
    redis.call('PEXPIREAT', stream, whole(now + ttl))
    redis.call('PEXPIREAT', meta, whole(now + ttl))
  end
end

-- "event EPOCH FIRST FLOOR k,event bytes,data bytes;..." NEWLINE bodies; without entries: "tail EPOCH TAIL FLOOR".
local function push(stream, state, first, lengths, bodies, size)
  if pushlimit < 0 then return end
  local head
  if size > pushlimit then
    head = 'tail ' .. state.epoch .. ' ' .. whole(state.tail) .. ' ' .. whole(state.floor) .. '\n'
  else
    head = 'event ' .. state.epoch .. ' ' .. whole(first) .. ' ' .. whole(state.floor) .. ' '
      .. table.concat(lengths, ';') .. '\n' .. table.concat(bodies)
  end
  redis.pcall('PUBLISH', stream, head)
end

local function is_refused(state, kind, event)
  if state.ended then return true end
  return kind == 'orphan' and (state.owner ~= event or redis.call('EXISTS', KEYS[#KEYS]) == 1)
end

local function add(stream, state, kind, event, data)
  local id = state.epoch .. '-' .. whole(state.tail + 1)
  if kind == 'event' then
    return redis.pcall('XADD', stream, id, 'kind', 'event', 'event', event, 'data', data,
      'w', writer, 'b', whole(state.bytes + #data))
  end
  return redis.pcall('XADD', stream, id, 'kind', 'end', 'event', '', 'data', 'null',
    'w', writer, 'b', whole(state.bytes), 'reason', data)
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

local function append(stream, meta, at, count, known_epoch, known_last)
  local state, problem = load(stream, meta, known_epoch, known_last)
  if not state then return {2, 0, problem, '', 0} end
  local is_orphan = ARGV[at + 1] == 'orphan'
  local first, size, status = state.tail + 1, 0, 0
  local lengths, bodies = {}, {}
  for index = at, at + 4 * (count - 1), 4 do
    local number, kind, event, data = tonumber(ARGV[index]), ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
    if kind == 'orphan' or number > state.last then
      if is_refused(state, kind, event) then
        status, problem = 1, redis.call('HGET', meta, 'reason')
        break
      end
      local added = add(stream, state, kind, event, data)
      if type(added) == 'table' and catch_up(stream, state) then
        if state.ended then
          status, problem = 1, state.reason
          break
        end
        first = state.tail + 1
        added = add(stream, state, kind, event, data)
      end
      if type(added) == 'table' then
        status, problem = 2, added.err
        break
      end
      state.tail = state.tail + 1
      local mark = 'v,'
      if kind == 'event' then
        state.bytes = state.bytes + #data
      else
        event, mark = '', 'e,'
        state.ended, state.reason = true, data
      end
      if kind ~= 'orphan' then state.last = number end
      size = size + #event + #data
      lengths[#lengths + 1] = mark .. #event .. ',' .. #data
      bodies[#bodies + 1] = event .. data
    end
  end
  if state.tail >= first then
    if not is_orphan then trim(stream, state) end
    save(stream, meta, state, is_orphan)
    push(stream, state, first, lengths, bodies, size)
  end
  return {status, state.last, problem or '', state.epoch, state.tail}
end

local replies = {}
local at = 9
for run = 1, runs do
  local count = tonumber(ARGV[at])
  local known_epoch, known_last = ARGV[at + 1], tonumber(ARGV[at + 2])
  replies[run] = append(KEYS[2 * run - 1], KEYS[2 * run], at + 3, count, known_epoch, known_last)
  at = at + 3 + 4 * count
end
return replies
