-- Reads the number of a partition's last transition, before its online users are read.
--
-- USES     clock, epoch
-- KEYS[1]  string  number of the last transition
-- KEYS[2]  string  name of this life of the data
--
-- RETURNS   { name of this life of the data, number of the last transition }
-- PUBLISHES nothing
-- REPEAT    safe: names a life of the data once, else only reads

local rev_key, epoch_key = KEYS[1], KEYS[2]

return { epoch_at(epoch_key), tonumber(redis.call('GET', rev_key) or 0) }
