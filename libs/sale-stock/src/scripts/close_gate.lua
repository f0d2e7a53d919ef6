-- Closes the gate for a recovery that has won an epoch. A missing gate stays missing.
-- KEYS: gate. ARGV: epoch. Answers 'MISSING', 'CLOSED', or the epoch of the gate that stands above it.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'open')
if not gate[1] then return 'MISSING' end
local stands, mine = tonumber(gate[1]), tonumber(ARGV[1])
if stands > mine or (stands == mine and gate[2] == '1') then return stands end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'open', '0')
return 'CLOSED'
