-- Publishes a message that is not kept on a user's topic, once per request.
--
-- USES     whole, once, deleted
-- KEYS[1]  string  answer already given to this request; lives for a minute
-- KEYS[2]  hash    last updates of the user; the field "deleted" marks a deleted account
-- ARGV[1]  string  message, JSON with a field "kind"
-- ARGV[2]  string  the user's topic (same hash tag as the keys)
--
-- RETURNS   { 'sent', nodes that were listening }, or { 'deleted' } for a deleted account
-- PUBLISHES the message
-- REPEAT    safe: the same request gets the same answer and publishes nothing

local request, profile = KEYS[1], KEYS[2]
local message, channel = ARGV[1], ARGV[2]

local answer = answered(request)
if answer then
  return answer
end
if is_deleted(profile) then
  return { 'deleted' }
end
return remember(request, { 'sent', redis.call('SPUBLISH', channel, message) })
