-- Publishes a message that is not kept on a user's topic, once per request.
--
-- KEYS[1]  string  answer already given to this request; lives for a minute
-- KEYS[2]  hash    last updates of the user; the field "deleted" marks a deleted account
-- ARGV[1]  string  message, JSON with a field "kind"
-- ARGV[2]  string  the user's topic (same hash tag as the keys)
--
-- RETURNS   nodes that were listening, or -1 for a deleted account
-- PUBLISHES the message
-- REPEAT    safe: the same request answers the same and publishes nothing

local request, profile = KEYS[1], KEYS[2]
local message, channel = ARGV[1], ARGV[2]

local answered = redis.call('GET', request)
if answered then
  return tonumber(answered)
end
if redis.call('HEXISTS', profile, 'deleted') == 1 then
  return -1
end
local nodes = redis.call('SPUBLISH', channel, message)
redis.call('SET', request, nodes, 'PX', 60000)
return nodes
