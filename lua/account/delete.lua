-- Marks an account as deleted for good, removes its updates and publishes that on the user's topic.
--
-- USES     clock, whole
-- KEYS[1]  hash    last updates of the user; the field "deleted" marks a deleted account
-- ARGV[1]  string  the user's topic (same hash tag as the key)
--
-- RETURNS   nodes that were listening
-- PUBLISHES { kind = "account-deleted" }
-- REPEAT    safe: an account stays deleted; a second message disconnects nobody

local profile, channel = KEYS[1], ARGV[1]

local since = redis.call('HGET', profile, 'deleted') or whole(now_ms)
redis.call('DEL', profile)
redis.call('HSET', profile, 'deleted', since)
return redis.call('SPUBLISH', channel, '{"kind":"account-deleted"}')
