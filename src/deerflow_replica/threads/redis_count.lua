-- How many of a user's threads have not expired. KEYS: by creation, those that expire.
local clock = redis.call('TIME')
local now = string.format('%d%06d', clock[1], clock[2])
return redis.call('ZCARD', KEYS[1]) - redis.call('ZCOUNT', KEYS[2], '-inf', now)
