-- Who owns threads.
--
-- KEYS: rows. ARGV: thread ids. Reply: the owners in this order, empty where there is no live thread, as one text.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local owners = redis.call('HMGET', KEYS[1], unpack(ARGV))
for i, row in ipairs(owners) do
  local owner = ''
  local expires, deleted, names = string.match(row or '', '^%x+ %d+ %d+ %d+ %S+ (%S+) (%S+)\n([^\n]*)')
  if deleted == '-' then
    names = cjson.decode(names)
    if expires == '-' or names[4] == 'busy' or tonumber(expires) > now then owner = names[1] end
  end
  owners[i] = owner
end
return table.concat(owners, '\30')
