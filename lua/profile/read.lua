-- Reads the last updates of a user, and the life of the data that they belong to.
--
-- USES     clock, epoch
-- KEYS[1]  hash    last updates of the user
-- KEYS[2]  string  name of this life of the data
--
-- RETURNS   { name of this life of the data, { field, value, … } }
-- PUBLISHES nothing
-- REPEAT    safe: names a life of the data once, else only reads

local profile, epoch_key = KEYS[1], KEYS[2]

local epoch = redis.call('GET', epoch_key) or begin_epoch(epoch_key)
return { epoch, redis.call('HGETALL', profile) }
