-- Takes entries that nobody has asked for since the cutoff, so that no repeat can revive them.
-- KEYS: gate, claims, unsettled. ARGV: cutoff, at most how many.
-- Answers 'MISSING' or 'FOREIGN', or {epoch, partitions, field, claim, ...}.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'partitions')
if not gate[1] then return 'MISSING' end
-- In a stale copy a live request's touch may be missing.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if run ~= gate[2] then return 'FOREIGN' end -- rule: r1

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = { tonumber(gate[1]), tonumber(gate[3]) }
local fields = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, field in ipairs(fields) do
  local value = redis.call('HGET', KEYS[2], field)
  local claim, mark, touched, rest
  if value then
    claim, mark, touched, rest = string.match(value, '^([^|]+)|(.)|(%d+)|(.*)$')
  end
  if mark == 'P' or mark == 'E' or mark == 'V' then
    -- Touched, so that it is taken again only if its Void is not settled within another deadline.
    touched = math.max(now, tonumber(touched) + 1)
    mark = 'V' -- rule: r6
    redis.call('HSET', KEYS[2], field, string.format('%s|%s|%d|%s', claim, mark, touched, rest))
    redis.call('ZADD', KEYS[3], touched, field)
    reply[#reply + 1] = field
    reply[#reply + 1] = claim
  else
    redis.call('ZREM', KEYS[3], field)
  end
end
return reply
