-- All rows of several hashes as of one moment: field, value, field, value... for each of KEYS.
local found = {}
for i = 1, #KEYS do found[i] = redis.call('HGETALL', KEYS[i]) end
return found
