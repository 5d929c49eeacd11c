-- Marks an account as deleted for ever, forgets its updates and says so on the user's topic.
--
-- KEYS[1]  hash    last updates of the user; the field "deleted" marks a deleted account
-- ARGV[1]  string  the user's topic (same hash tag as the key)
--
-- RETURNS   nodes that were listening
-- PUBLISHES { kind = "account-deleted" }
-- REPEAT    safe: an account stays deleted; saying it again disconnects nobody twice

local profile, channel = KEYS[1], ARGV[1]

local time   = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local since  = redis.call('HGET', profile, 'deleted') or now_ms
redis.call('DEL', profile)
redis.call('HSET', profile, 'deleted', since)
return redis.call('SPUBLISH', channel, '{"kind":"account-deleted"}')
