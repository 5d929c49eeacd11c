-- Publishes the number of a partition's last transition, so that every node sees whether it missed one.
--
-- USES     clock, epoch
-- KEYS[1]  string  number of the last transition
-- KEYS[2]  string  name of this life of the data
-- ARGV[1]  string  pulse channel (same hash tag as the keys)
--
-- RETURNS   nodes that were listening
-- PUBLISHES { epoch, rev }
-- REPEAT    safe: publishes the same once more

local rev_key, epoch_key = KEYS[1], KEYS[2]
local channel            = ARGV[1]

return redis.call('SPUBLISH', channel, string.format('{"epoch":"%s","rev":%s}',
  epoch_at(epoch_key), redis.call('GET', rev_key) or 0))
