-- Has every connection of a user closed that is open now, also on nodes that do not hear it at once.
--
-- KEYS[1]  string  answer already given to this request; lives for a minute
-- KEYS[2]  hash    last updates of the user; "disconnected" (ms): connections from before are to be closed
-- ARGV[1]  int     ms for which the hash is kept from now on
-- ARGV[2]  string  the user's topic (same hash tag as the keys)
--
-- RETURNS   nodes that were listening, or -1 for a deleted account
-- PUBLISHES { kind = "disconnect" }
-- REPEAT    safe: the same request answers the same and publishes nothing

local request, profile = KEYS[1], KEYS[2]
local keep_ms, channel = ARGV[1], ARGV[2]

local answered = redis.call('GET', request)
if answered then
  return tonumber(answered)
end
if redis.call('HEXISTS', profile, 'deleted') == 1 then
  return -1
end

local time   = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', profile, 'disconnected', now_ms)
redis.call('PEXPIRE', profile, keep_ms)
local nodes = redis.call('SPUBLISH', channel, '{"kind":"disconnect"}')
redis.call('SET', request, nodes, 'PX', 60000)
return nodes
