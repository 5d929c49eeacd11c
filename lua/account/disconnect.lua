-- Closes every connection of a user that is open now.
--
-- USES     clock, whole, once, deleted, disconnect
-- KEYS[1]  hash    answers to the requests of even minutes
-- KEYS[2]  hash    answers to the requests of odd minutes
-- KEYS[3]  hash    last updates of the user; "disconnected" (ms): connections from before are to be closed
-- ARGV[1]  int     ms for which the hash is kept from now on
-- ARGV[2]  string  the user's topic (same hash tag as the keys)
-- ARGV[3]  string  the request
--
-- RETURNS   { 'sent', nodes that were listening }, or { 'deleted' } for a deleted account
-- PUBLISHES { kind = "disconnect" }
-- REPEAT    safe: the same request gets the same answer and publishes nothing

local even, odd, profile        = KEYS[1], KEYS[2], KEYS[3]
local keep_ms, channel, request = ARGV[1], ARGV[2], ARGV[3]

local answer = answered(even, odd, request)
if answer then
  return answer
end
if is_deleted(profile) then
  return { 'deleted' }
end
return remember(even, odd, request, { 'sent', disconnect(profile, keep_ms, channel) })
