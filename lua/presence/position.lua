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

local rev, epoch = unpack(redis.call('MGET', rev_key, epoch_key))
return { epoch or begin_epoch(epoch_key), tonumber(rev or 0) }
