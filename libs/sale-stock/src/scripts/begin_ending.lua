-- Before claims are ended by a return or an expiry: no repeat is told yes for them any more.
-- KEYS: gate, claims, unsettled. ARGV: field, claim for each; an entry that holds another claim is let be.
-- Answers 'MISSING', 'CLOSED' or 'FOREIGN', or {partitions, marked}.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'open', 'partitions')
if not gate[1] then return 'MISSING' end
-- A recovery may be rebuilding from the ledger, in which the claims have not ended.
if gate[3] ~= '1' then return 'CLOSED' end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if run ~= gate[2] then return 'FOREIGN' end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fields = {}
for i = 1, #ARGV, 2 do
  fields[#fields + 1] = ARGV[i]
end
local held = redis.call('HMGET', KEYS[2], unpack(fields))
local entries, touches = {}, {}
for i = 1, #fields do
  if held[i] then
    local claim, touched, rest = string.match(held[i], '^([^|]+)|.|(%d+)|(.*)$')
    if claim == ARGV[2 * i] then
      -- Touched, so that it is given up only if it has not ended within another deadline.
      touched = math.max(now, tonumber(touched) + 1)
      entries[#entries + 1] = fields[i]
      entries[#entries + 1] = string.format('%s|E|%d|%s', claim, touched, rest)
      touches[#touches + 1] = touched
      touches[#touches + 1] = fields[i]
    end
  end
end
if #entries > 0 then
  redis.call('HSET', KEYS[2], unpack(entries))
  redis.call('ZADD', KEYS[3], unpack(touches))
end
return { tonumber(gate[4]), #entries / 2 }
