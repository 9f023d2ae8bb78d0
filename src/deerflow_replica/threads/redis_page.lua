-- A stretch of a user's threads in one order.
--
-- KEYS: the order, rows, those of the user's that expire. ARGV: 'desc' or 'asc', where it begins, how many to leave out
-- (only where none has expired), how many.
-- Reply: the time, how many were left out; id and row of each, as one text.
local clock = redis.call('TIME')
local now = string.format('%d%06d', clock[1], clock[2])
local expired = redis.call('ZCOUNT', KEYS[3], '-inf', now)
local left_out = expired == 0 and ARGV[3] or '0'
local command, stop = 'ZREVRANGEBYLEX', '-'
if ARGV[1] == 'asc' then command, stop = 'ZRANGEBYLEX', '+' end
local members = redis.call(command, KEYS[1], ARGV[2], stop, 'LIMIT', left_out, ARGV[4])
local rows = {}
for i, member in ipairs(members) do
  local id = string.sub(member, 18)
  rows[i] = id .. '\n' .. redis.call('HGET', KEYS[2], id)
end
return {now, left_out, table.concat(rows, '\30')}
