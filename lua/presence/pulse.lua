-- Publishes the number of a partition's last transition, so that every node sees whether it missed one. Notices a server
-- that is another one, or was restarted.
--
-- USES     clock, whole, epoch, server
-- KEYS[1]  string  number of the last transition
-- KEYS[2]  string  name of this life of the data
-- KEYS[3]  string  server that the data was last seen on, and from when on it takes users offline: "<run id> <ms>"
-- ARGV[1]  string  pulse channel (same hash tag as the keys)
-- ARGV[2]  int     ms for which nobody is taken offline after a restart or a failover
--
-- RETURNS   nodes that were listening
-- PUBLISHES { epoch, rev }
-- REPEAT    safe: publishes the same once more

local rev_key, epoch_key = KEYS[1], KEYS[2]
local server_key         = KEYS[3]
local channel            = ARGV[1]
local patience_ms        = tonumber(ARGV[2])

offline_from(server_key, patience_ms)
local rev, epoch = unpack(redis.call('MGET', rev_key, epoch_key))
return redis.call('SPUBLISH', channel,
  string.format('{"epoch":"%s","rev":%s}', epoch or begin_epoch(epoch_key), rev or 0))
