-- Threads by their ids.
--
-- KEYS: rows. ARGV: thread ids. Reply: the time; the rows in this order, empty where there is none, as one text.
local clock = redis.call('TIME')
local rows = redis.call('HMGET', KEYS[1], unpack(ARGV))
for i, row in ipairs(rows) do rows[i] = row or '' end
return {string.format('%d%06d', clock[1], clock[2]), table.concat(rows, '\30')}
