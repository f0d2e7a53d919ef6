-- Changes what the gate enforces. KEYS: gate, claims.
-- ARGV: generation, starts, ends, stock, limit, paused.
-- Answers 'MISSING', 'NEWER', 'APPLIED', or the units claimed if the stock would fall below them.
local generation = redis.call('HGET', KEYS[1], 'generation')
if not generation then return 'MISSING' end
if tonumber(generation) > tonumber(ARGV[1]) then return 'NEWER' end
local claimed = redis.call('HLEN', KEYS[2])
if tonumber(ARGV[4]) < claimed then return claimed end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'starts', ARGV[2], 'ends', ARGV[3],
  'stock', ARGV[4], 'limit', ARGV[5], 'paused', ARGV[6])
return 'APPLIED'
