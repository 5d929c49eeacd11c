-- Begins the lease of a new incarnation.
--
-- USES     clock, whole
-- KEYS[1]  zset    incarnations, scored by the end of their lease (ms)
-- ARGV[1]  string  incarnation
-- ARGV[2]  int     length of a lease (ms)
--
-- RETURNS   end of the lease (ms)
-- PUBLISHES nothing
-- REPEAT    safe: the lease begins at the last call

local leases, incarnation = KEYS[1], ARGV[1]
local lease_ms            = tonumber(ARGV[2])

local ends = now_ms + lease_ms
redis.call('ZADD', leases, whole(ends), incarnation)
return ends
