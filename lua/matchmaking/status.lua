-- Tells how the queue is.
--
-- KEYS[1]  zset    users who wait, scored by their place
-- KEYS[2]  hash    user -> ticket, "<place> <rating> <joined at (ms)> <version>"
-- KEYS[3]  zset    matches that are not over, scored by when they are told (again) (ms)
-- KEYS[4]  hash    second modulo 60 -> "<second> <matches made in it>"
--
-- RETURNS   { users who wait, ms for which the first has waited, matches that are not over, matches made within a minute }
-- PUBLISHES nothing
-- REPEAT    safe: changes nothing

local queue, tickets = KEYS[1], KEYS[2]
local pending, made  = KEYS[3], KEYS[4]

local time   = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local first     = redis.call('ZRANGE', queue, 0, 0)[1]
local ticket    = first and redis.call('HGET', tickets, first)
local waited_ms = ticket and math.max(0, now_ms - string.match(ticket, '^%S+ %S+ (%S+)')) or 0

local in_a_minute = 0
for _, entry in ipairs(redis.call('HVALS', made)) do
  local second, matches = string.match(entry, '^(%d+) (%d+)$')
  if second and time[1] - second < 60 then
    in_a_minute = in_a_minute + matches
  end
end
return { redis.call('ZCARD', queue), waited_ms, redis.call('ZCARD', pending), in_a_minute }
