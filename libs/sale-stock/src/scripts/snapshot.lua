-- One consistent look at a sale. KEYS: gate, claims, unsettled.
-- Answers {now, claimed, unsettled} and, if there is a gate, {.., own, epoch, open, generation, starts,
-- ends, stock, limit, paused, partitions, seq}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = { now, redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[3]) }
local gate = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'open', 'generation', 'starts', 'ends',
  'stock', 'limit', 'paused', 'partitions', 'seq')
local held = redis.call('HGET', KEYS[1], 'held')
if gate[1] then
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  reply[4] = gate[1] == run and tonumber(held) == reply[2] and 1 or 0
  for i = 2, #gate do
    reply[#reply + 1] = tonumber(gate[i])
  end
end
return reply
