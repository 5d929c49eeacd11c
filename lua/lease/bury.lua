-- Takes away leases that are over, at most a batch of them. Their incarnations are dead from then on.
--
-- KEYS[1]  zset  incarnations, scored by the end of their lease (ms)
-- ARGV[1]  int   most leases to take away in this call
--
-- RETURNS   the incarnations
-- PUBLISHES nothing
-- REPEAT    safe: a lease is taken away once

local leases    = KEYS[1]
local batch_max = tonumber(ARGV[1])

local time   = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local over   = redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. now_ms, 'LIMIT', 0, batch_max)
for _, incarnation in ipairs(over) do
  redis.call('ZREM', leases, incarnation)
end
return over
