-- Reads where the transitions of a partition stand, before its online users are read.
--
-- KEYS[1]  string  number of the last transition
-- KEYS[2]  string  name of this life of the data
--
-- RETURNS   { name of this life of the data, revision of the last transition }
-- PUBLISHES nothing
-- REPEAT    safe: names a life of the data once, else reads only

local rev_key, epoch_key = KEYS[1], KEYS[2]

local time = redis.call('TIME')
redis.call('SETNX', epoch_key, string.format('%x%05x', time[1], time[2]))
return { redis.call('GET', epoch_key), tonumber(redis.call('GET', rev_key) or 0) }
