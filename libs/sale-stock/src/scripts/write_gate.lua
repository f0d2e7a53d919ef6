-- The last step of a recovery: puts the rebuilt entries in place and opens the gate.
-- KEYS: gate, claims, unsettled, rebuild.
-- ARGV: epoch, readAt, validity, entries, generation, starts, ends, stock, limit, paused, partitions, seq.
-- Answers 'OPENED', 'TOO_LATE', 'REBUILD_LOST', or the epoch of the gate that stands above it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'open', 'run')
local mine = tonumber(ARGV[1])
if gate[1] then
  local stands = tonumber(gate[1])
  if stands == mine and gate[2] == '1' and gate[3] == run then return 'OPENED' end
  if stands > mine then return stands end
end
-- A recovery that lost its turn meanwhile must not open: the next one has waited this time out.
local age = now - tonumber(ARGV[2])
if age < 0 or age > tonumber(ARGV[3]) then return 'TOO_LATE' end -- rule: validity
if redis.call('HLEN', KEYS[4]) ~= tonumber(ARGV[4]) then return 'REBUILD_LOST' end

redis.call('UNLINK', KEYS[2], KEYS[3])
if tonumber(ARGV[4]) > 0 then
  redis.call('RENAME', KEYS[4], KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'run', run, 'open', '1', 'generation', ARGV[5],
  'starts', ARGV[6], 'ends', ARGV[7], 'stock', ARGV[8], 'limit', ARGV[9], 'paused', ARGV[10],
  'partitions', ARGV[11], 'seq', ARGV[12], 'held', ARGV[4])
return 'OPENED'
