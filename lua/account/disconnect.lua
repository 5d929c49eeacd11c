-- Closes every connection of a user that is open now.
--
-- USES     clock, whole, once, deleted, disconnect
-- KEYS[1]  string  answer already given to this request; lives for a minute
-- KEYS[2]  hash    last updates of the user; "disconnected" (ms): connections from before are to be closed
-- ARGV[1]  int     ms for which the hash is kept from now on
-- ARGV[2]  string  the user's topic (same hash tag as the keys)
--
-- RETURNS   { 'sent', nodes that were listening }, or { 'deleted' } for a deleted account
-- PUBLISHES { kind = "disconnect" }
-- REPEAT    safe: the same request gets the same answer and publishes nothing

local request, profile = KEYS[1], KEYS[2]
local keep_ms, channel = ARGV[1], ARGV[2]

local answer = answered(request)
if answer then
  return answer
end
if is_deleted(profile) then
  return { 'deleted' }
end
return remember(request, { 'sent', disconnect(profile, keep_ms, channel) })
