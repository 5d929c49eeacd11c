-- Renews the lease of an incarnation, unless it is gone: then the incarnation is dead for ever.
--
-- KEYS[1]  zset    incarnations, scored by the end of their lease (ms)
-- ARGV[1]  string  incarnation
-- ARGV[2]  int     length of a lease (ms)
--
-- RETURNS   end of the lease (ms), or 0 when it is gone
-- PUBLISHES nothing
-- REPEAT    safe: a lease is renewed from now on, however often

local leases, incarnation = KEYS[1], ARGV[1]
local lease_ms            = tonumber(ARGV[2])

if not redis.call('ZSCORE', leases, incarnation) then
  return 0
end
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms
redis.call('ZADD', leases, string.format('%.0f', ends), incarnation)
return ends
