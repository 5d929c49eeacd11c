-- Publishes a message that is not kept on a user's topic, once per request.
--
-- USES     clock, whole, once, deleted
-- KEYS[1]  hash    answers to the requests of even minutes
-- KEYS[2]  hash    answers to the requests of odd minutes
-- KEYS[3]  hash    last updates of the user; the field "deleted" marks a deleted account
-- ARGV[1]  string  message, JSON with a field "kind"
-- ARGV[2]  string  the user's topic (same hash tag as the keys)
-- ARGV[3]  string  the request
--
-- RETURNS   { 'sent', nodes that were listening }, or { 'deleted' } for a deleted account
-- PUBLISHES the message
-- REPEAT    safe: the same request gets the same answer and publishes nothing

local even, odd, profile        = KEYS[1], KEYS[2], KEYS[3]
local message, channel, request = ARGV[1], ARGV[2], ARGV[3]

local answer = answered(even, odd, request)
if answer then
  return answer
end
if is_deleted(profile) then
  return { 'deleted' }
end
return remember(even, odd, request, { 'sent', redis.call('SPUBLISH', channel, message) })
