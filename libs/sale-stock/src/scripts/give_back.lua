-- Gives back units whose append is certain not to be in the log.
-- KEYS: gate, claims, unsettled. ARGV: field, claim, claimedAt for each. Answers how many were given back.
-- An entry touched after it was taken stays: a repeat may have appended it. So does one being settled.
local given = 0
for i = 1, #ARGV, 3 do
  local value = redis.call('HGET', KEYS[2], ARGV[i])
  if value then
    local claim, mark, touched = string.match(value, '^([^|]+)|(.)|(%d+)|')
    if claim == ARGV[i + 1] and mark == 'P' and touched == ARGV[i + 2] then
      redis.call('HDEL', KEYS[2], ARGV[i])
      redis.call('ZREM', KEYS[3], ARGV[i])
      given = given + 1
    end
  end
end
if given > 0 and redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HINCRBY', KEYS[1], 'held', -given)
end
return given
