-- Reads figures about the queue.
--
-- USES     clock, made
-- KEYS[1]  zset  users who wait, scored by place
-- KEYS[2]  zset  pending matches, scored by when they are announced (again) (ms)
-- KEYS[3]  hash  second -> matches made in it
-- ARGV[1]  string  prefix of the tickets' keys (same hash tag as the keys)
--
-- RETURNS   { users who wait, ms for which the first has waited, pending matches, matches made within a minute }
-- PUBLISHES nothing
-- REPEAT    safe: changes nothing

local queue, pending, made = KEYS[1], KEYS[2], KEYS[3]
local tickets              = ARGV[1]

local first     = redis.call('ZRANGE', queue, 0, 0)[1]
local joined_ms = first and redis.call('HGET', tickets .. first, 'joined') or now_ms
return { redis.call('ZCARD', queue), math.max(0, now_ms - joined_ms), redis.call('ZCARD', pending),
  made_in_a_minute(made) }
