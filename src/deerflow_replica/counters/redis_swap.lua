-- Write a model's circuit if its version is still the one that was read.
--
-- KEYS: circuits. ARGV: the model, the version ('0' for none), the circuit, how many seconds all of them stay.
-- Reply: 1 if it was written.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if (stored and string.match(stored, '^%d+') or '0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', tonumber(ARGV[2]) + 1) .. ' ' .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
