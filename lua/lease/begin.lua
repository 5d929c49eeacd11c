-- Begins the lease of a new incarnation.
--
-- KEYS[1]  zset    incarnations, scored by the end of their lease (ms)
-- ARGV[1]  string  incarnation
-- ARGV[2]  int     length of a lease (ms)
--
-- RETURNS   end of the lease (ms)
-- PUBLISHES nothing
-- REPEAT    safe: the lease begins now, however often

local leases, incarnation = KEYS[1], ARGV[1]
local lease_ms            = tonumber(ARGV[2])

local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms
redis.call('ZADD', leases, string.format('%.0f', ends), incarnation)
return ends
