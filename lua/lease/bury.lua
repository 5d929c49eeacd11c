-- Takes away leases that are over, at most a batch of them. Their incarnations are dead from then on. A call that
-- comes later than its caller can have meant takes away nothing: Redis stood still, or its clock was set, and
-- everybody gets the time to renew.
--
-- KEYS[1]  zset  incarnations, scored by the end of their lease (ms)
-- ARGV[1]  int   most leases to take away in this call
-- ARGV[2]  int   latest time at which the caller expects this call to run (ms)
--
-- RETURNS   the incarnations
-- PUBLISHES nothing
-- REPEAT    safe: a lease is taken away once

local leases    = KEYS[1]
local batch_max = tonumber(ARGV[1])
local latest_ms = tonumber(ARGV[2])

local time   = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if now_ms > latest_ms then
  return {}
end
local over = redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. string.format('%.0f', now_ms),
  'LIMIT', 0, batch_max)
for _, incarnation in ipairs(over) do
  redis.call('ZREM', leases, incarnation)
end
return over
