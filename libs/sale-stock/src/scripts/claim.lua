-- Takes units for a batch of requests of one sale.
-- KEYS: gate, claims, unsettled. ARGV: user, claim, key for each request.
-- Answers 'MISSING', 'CLOSED' or 'FOREIGN', or {epoch, partitions, now, outcome, ...}; an outcome is
-- sequence * 16 + slot for a unit taken, a negative number for a refusal, and the entry for a repeat.
local NOT_STARTED, ENDED, PAUSED, SOLD_OUT = -1, -2, -3, -4

local gate = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'open', 'starts', 'ends', 'stock', 'limit',
  'paused', 'partitions', 'seq', 'held')
if not gate[1] then return 'MISSING' end
if gate[3] ~= '1' then return 'CLOSED' end
-- Only the run of the server that the gate was written in may sell: another may be a stale copy.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if run ~= gate[2] then return 'FOREIGN' end -- rule: r1
-- Nor may a gate whose entries were lost without it: what they held is sold.
local claimed = redis.call('HLEN', KEYS[2])
if tonumber(gate[11]) ~= claimed then return 'FOREIGN' end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%d', now)
local limit = tonumber(gate[7])
local seq = tonumber(gate[10])

local refusal = nil
if now < tonumber(gate[4]) then
  refusal = NOT_STARTED
elseif now >= tonumber(gate[5]) then
  refusal = ENDED
elseif gate[8] == '1' then
  refusal = PAUSED
end

local fields = {}
for i = 1, #ARGV, 3 do
  for slot = 0, limit - 1 do
    fields[#fields + 1] = ARGV[i] .. '/' .. slot
  end
end
local held = redis.call('HMGET', KEYS[2], unpack(fields))
local left = tonumber(gate[6]) - claimed

-- Entries written in this call: the batch may hold several requests of one user.
local written = {}
local entries, touches = {}, {}
local function write(field, value, touched)
  written[field] = value
  entries[#entries + 1] = field
  entries[#entries + 1] = value
  touches[#touches + 1] = touched
  touches[#touches + 1] = field
end

local reply = { tonumber(gate[1]), tonumber(gate[9]), now }
local first = 0
for i = 1, #ARGV, 3 do
  local key = ARGV[i + 2]
  local free, slot, value, latest = nil, nil, nil, -1
  for candidate = 0, limit - 1 do
    local entry
    entry = written[fields[first + candidate + 1]] or held[first + candidate + 1] -- rule: dedupe
    if not entry then
      free = free or candidate
    elseif limit == 1 then
      slot, value = candidate, entry
    else
      -- The entry of this key, else the latest one.
      local sequence, entry_key = string.match(entry, '^[^|]+|.|%d+|(%d+)|(%x+)|')
      if entry_key == key then
        slot, value, free = candidate, entry, nil
        break
      end
      if tonumber(sequence) > latest then
        slot, value, latest = candidate, entry, tonumber(sequence)
      end
    end
  end

  if free == nil then
    local field = fields[first + slot + 1]
    local claim, mark, touched, rest = string.match(value, '^([^|]+)|(.)|(%d+)|(.*)$')
    if mark == 'P' then
      -- Strictly later than before, so that nobody who knows the former touch gives the unit back.
      touched = math.max(now, tonumber(touched) + 1)
      value = string.format('%s|P|%d|%s', claim, touched, rest)
      write(field, value, touched)
    end
    reply[#reply + 1] = value .. '|' .. slot
  elseif refusal then
    reply[#reply + 1] = refusal
  elseif left <= 0 then
    reply[#reply + 1] = SOLD_OUT
  else
    left = left - 1
    claimed = claimed + 1
    seq = seq + 1
    local entry = ARGV[i + 1] .. '|P|' .. now_text .. '|' .. string.format('%d', seq) .. '|' .. key
      .. '|' .. now_text
    write(fields[first + free + 1], entry, now_text)
    reply[#reply + 1] = seq * 16 + free
  end
  first = first + limit
end

if #entries > 0 then
  redis.call('ZADD', KEYS[3], unpack(touches))
  redis.call('HSET', KEYS[2], unpack(entries))
  redis.call('HSET', KEYS[1], 'seq', string.format('%d', seq), 'held', claimed)
end
return reply
