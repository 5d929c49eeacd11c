-- Reads what is kept about a user's updates, and in which life of the data.
--
-- KEYS[1]  hash    last updates of the user
-- KEYS[2]  string  name of this life of the data
--
-- RETURNS   { name of this life of the data, { field, value, … } }
-- PUBLISHES nothing
-- REPEAT    safe: names a life of the data once, else reads only

local profile, epoch_key = KEYS[1], KEYS[2]

local time = redis.call('TIME')
redis.call('SETNX', epoch_key, string.format('%x%05x', time[1], time[2]))
return { redis.call('GET', epoch_key), redis.call('HGETALL', profile) }
