-- Removes expired leases, at most a batch of them. Their incarnations are dead from then on. A call that runs later
-- than its caller can have meant removes nothing: Redis was suspended, or its clock was set, and every node gets the
-- time to renew.
--
-- USES     clock, whole
-- KEYS[1]  zset  incarnations, scored by the end of their lease (ms)
-- ARGV[1]  int   most leases to remove in this call
-- ARGV[2]  int   latest time at which the caller expects this call to run (ms)
--
-- RETURNS   the incarnations
-- PUBLISHES nothing
-- REPEAT    safe: a lease is removed once

local leases    = KEYS[1]
local batch_max = tonumber(ARGV[1])
local latest_ms = tonumber(ARGV[2])

if now_ms > latest_ms then
  return {}
end
local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. whole(now_ms), 'LIMIT', 0, batch_max)
for _, incarnation in ipairs(expired) do
  redis.call('ZREM', leases, incarnation)
end
return expired
