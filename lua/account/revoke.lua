-- Refuses the tokens of a user that were issued before now, and closes the user's connections that are open now.
--
-- USES     clock, whole, once, deleted, disconnect
-- KEYS[1]  hash    answers to the requests of even minutes
-- KEYS[2]  hash    answers to the requests of odd minutes
-- KEYS[3]  hash    last updates of the user; "disconnected" (ms): connections from before are to be closed
-- KEYS[4]  string  tokens of the user that were issued before this time (ms) are refused
-- ARGV[1]  int     ms for which the hash is kept from now on
-- ARGV[2]  int     ms for which the revocation is kept from now on
-- ARGV[3]  string  the user's topic (same hash tag as the keys)
-- ARGV[4]  string  the request
--
-- RETURNS   { 'sent', nodes that were listening, time (ms) before which tokens are refused },
--           or { 'deleted' } for a deleted account
-- PUBLISHES { kind = "disconnect" }
-- REPEAT    safe: the same request gets the same answer and publishes nothing; the time never goes back

local even, odd                = KEYS[1], KEYS[2]
local profile, revoked         = KEYS[3], KEYS[4]
local keep_ms, keep_revoked_ms = ARGV[1], ARGV[2]
local channel, request         = ARGV[3], ARGV[4]

local answer = answered(even, odd, request)
if answer then
  return answer
end
if is_deleted(profile) then
  return { 'deleted' }
end

-- A token issued in the current millisecond counts as issued before.
local before = math.max(now_ms + 1, tonumber(redis.call('GET', revoked) or 0))
redis.call('SET', revoked, whole(before), 'PX', keep_revoked_ms)
return remember(even, odd, request, { 'sent', disconnect(profile, keep_ms, channel), before })
