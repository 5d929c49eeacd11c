-- Refuses the tokens of a user that were issued before now, and has the user's connections closed that are open now.
--
-- KEYS[1]  string  answer already given to this request; lives for a minute
-- KEYS[2]  hash    last updates of the user; "disconnected" (ms): connections from before are to be closed
-- KEYS[3]  string  tokens of the user that were issued before this time (ms) are refused
-- ARGV[1]  int     ms for which the hash is kept from now on
-- ARGV[2]  int     ms for which the revocation is kept from now on
-- ARGV[3]  string  the user's topic (same hash tag as the keys)
--
-- RETURNS   { nodes that were listening, time (ms) before which tokens are refused }, or { -1, 0 } for a deleted account
-- PUBLISHES { kind = "disconnect" }
-- REPEAT    safe: the same request answers the same and publishes nothing; the time never goes back

local request, profile, revoked = KEYS[1], KEYS[2], KEYS[3]
local keep_ms, keep_revoked_ms  = ARGV[1], ARGV[2]
local channel                   = ARGV[3]

local answered = redis.call('GET', request)
if answered then
  local nodes, before = string.match(answered, '^(%d+) (%d+)$')
  return { tonumber(nodes), tonumber(before) }
end
if redis.call('HEXISTS', profile, 'deleted') == 1 then
  return { -1, 0 }
end

local time   = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- What was issued in the millisecond that has begun was issued before.
local before = math.max(now_ms + 1, tonumber(redis.call('GET', revoked) or 0))
redis.call('SET', revoked, string.format('%.0f', before), 'PX', keep_revoked_ms)
redis.call('HSET', profile, 'disconnected', string.format('%.0f', now_ms))
redis.call('PEXPIRE', profile, keep_ms)
local nodes = redis.call('SPUBLISH', channel, '{"kind":"disconnect"}')
redis.call('SET', request, string.format('%d %.0f', nodes, before), 'PX', 60000)
return { nodes, before }
