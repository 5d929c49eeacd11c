-- Takes offline the users whose grace is over, at most a batch of them, and announces them.
--
-- USES     clock, whole, epoch, announce, server
-- KEYS[1]  zset    users about to go offline, scored by when (ms)
-- KEYS[2]  set     online users of the partition
-- KEYS[3]  string  number of the last transition
-- KEYS[4]  string  name of this life of the data
-- KEYS[5]  string  server that the data was last seen on, and from when on it takes users offline: "<run id> <ms>"
-- ARGV[1]  int     most users to take offline in this call
-- ARGV[2]  string  presence channel (same hash tag as the keys)
-- ARGV[3]  int     ms by which to look ahead: 0, or the grace when no node is left to do it later
-- ARGV[4]  int     ms for which nobody is taken offline after a restart or a failover
--
-- RETURNS   { { users taken offline }, 1 where more may be due or nil }
-- PUBLISHES { epoch, rev, online = [], offline = [users] } when there are any
-- REPEAT    safe: a user who was taken offline has left the zset

local leaving, online    = KEYS[1], KEYS[2]
local rev_key, epoch_key = KEYS[3], KEYS[4]
local server_key         = KEYS[5]
local batch_max          = tonumber(ARGV[1])
local channel            = ARGV[2]
local ahead_ms           = tonumber(ARGV[3])
local patience_ms        = tonumber(ARGV[4])

-- Registering a connection takes its user out of the zset, so nobody found here has one.
local due = redis.call('ZRANGEBYSCORE', leaving, '-inf', whole(now_ms + ahead_ms), 'LIMIT', 0, batch_max)
if #due == 0 then
  return { {}, false }
end
if now_ms < offline_from(server_key, patience_ms) and ahead_ms == 0 then
  return { {}, false }
end

redis.call('ZREM', leaving, unpack(due))
local offline = {}
for _, user in ipairs(due) do
  if redis.call('SREM', online, user) == 1 then
    offline[#offline + 1] = user
  end
end
if #offline > 0 then
  announce(epoch_key, rev_key, channel, '', table.concat(offline, ','))
end
return { offline, #due == batch_max and 1 }
