-- Says where the transitions of a partition stand, to every node that listens to it.
--
-- KEYS[1]  string  number of the last transition
-- KEYS[2]  string  name of this life of the data
-- ARGV[1]  string  pulse channel (same hash tag as the keys)
--
-- RETURNS   how many nodes were listening
-- PUBLISHES { epoch, rev }
-- REPEAT    safe: says it once more

local rev_key, epoch_key = KEYS[1], KEYS[2]
local channel            = ARGV[1]

local time = redis.call('TIME')
if redis.call('EXISTS', epoch_key) == 0 then
  redis.call('SET', epoch_key, string.format('%x%05x', time[1], time[2]))
end
return redis.call('SPUBLISH', channel, string.format('{"epoch":"%s","rev":%s}',
  redis.call('GET', epoch_key), redis.call('GET', rev_key) or 0))
