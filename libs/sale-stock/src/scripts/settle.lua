-- After a commit of the ledger: marks entries recorded, and removes ended and voided ones.
-- KEYS: gate, claims, unsettled. ARGV: how many to mark, then field, claim for each, marked ones first.
-- Answers {marked, removed, open}. An entry that holds another claim is let be.
local marks = tonumber(ARGV[1])
local fields = {}
for i = 2, #ARGV, 2 do
  fields[#fields + 1] = ARGV[i]
end
local held = redis.call('HMGET', KEYS[2], unpack(fields))
local entries, marked, removed = {}, {}, {}
for i = 1, #fields do
  if held[i] then
    local claim, mark, rest = string.match(held[i], '^([^|]+)|(.)|(.*)$')
    if claim == ARGV[2 * i + 1] then
      if i > marks then
        removed[#removed + 1] = fields[i]
      elseif mark == 'P' or mark == 'V' then -- not one that is ending
        marked[#marked + 1] = fields[i]
        entries[#entries + 1] = fields[i]
        entries[#entries + 1] = claim .. '|R|' .. rest
      end
    end
  end
end
if #marked > 0 then
  redis.call('HSET', KEYS[2], unpack(entries))
  redis.call('ZREM', KEYS[3], unpack(marked))
end
local gone = 0
if #removed > 0 then
  gone = redis.call('HDEL', KEYS[2], unpack(removed))
  redis.call('ZREM', KEYS[3], unpack(removed))
end
local gate = redis.call('HMGET', KEYS[1], 'open', 'run')
if gone > 0 and gate[2] then redis.call('HINCRBY', KEYS[1], 'held', -gone) end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local open = 0
if gate[1] == '1' and gate[2] == run then open = 1 end
return { #marked, gone, open }
