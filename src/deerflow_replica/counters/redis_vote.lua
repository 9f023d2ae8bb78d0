-- Set or remove one vote, and keep the sums.
--
-- KEYS: votes, sums. ARGV: the vote's name, '1', '-1' or '' for none, the model.
-- Sums: for each model '+model' and '-model', and '@model' for when it was last voted on.
-- Reply: 1 if that changed anything.
local clock = redis.call('TIME')
local before = redis.call('HGET', KEYS[1], ARGV[1])
local after = ARGV[2] ~= '' and ARGV[2] .. ' ' .. ARGV[3] or false
if before == after then return 0 end
if before then
  local sentiment, model = string.match(before, '^(-?1) (.*)$')
  if redis.call('HINCRBY', KEYS[2], (sentiment == '1' and '+' or '-') .. model, -1) == 0 then
    redis.call('HDEL', KEYS[2], (sentiment == '1' and '+' or '-') .. model)
  end
  redis.call('HDEL', KEYS[1], ARGV[1])
end
if after then
  redis.call('HSET', KEYS[1], ARGV[1], after)
  redis.call('HINCRBY', KEYS[2], (ARGV[2] == '1' and '+' or '-') .. ARGV[3], 1)
  redis.call('HSET', KEYS[2], '@' .. ARGV[3], clock[1] .. '.' .. string.format('%06d', clock[2]))
end
return 1
