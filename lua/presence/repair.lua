-- Derives the records about one user from the user's connections.
--
-- USES     clock, whole, epoch, announce
-- KEYS[1]  hash    connections of the user: "<incarnation>/<connection>" -> connected at (ms)
-- KEYS[2]  set     incarnations that have registered anything in this partition
-- KEYS[3]  set     online users of the partition
-- KEYS[4]  zset    users about to go offline, scored by when (ms)
-- KEYS[5]  string  number of the last transition
-- KEYS[6]  string  name of this life of the data
-- ARGV[1]  int     user id
-- ARGV[2]  string  prefix of the keys of what nodes owe (same hash tag as the keys)
-- ARGV[3]  int     most connections to look at in this call
-- ARGV[4]  int     grace before the user goes offline (ms)
-- ARGV[5]  string  presence channel (same hash tag as the keys)
--
-- RETURNS   how many records were wrong
-- PUBLISHES { epoch, rev, online = [user], offline = [] } when the user has connections and was offline
-- REPEAT    safe: correct records stay as they are

local connections, nodes = KEYS[1], KEYS[2]
local online, leaving    = KEYS[3], KEYS[4]
local rev_key, epoch_key = KEYS[5], KEYS[6]
local user, owed_begin   = ARGV[1], ARGV[2]
local batch_max          = tonumber(ARGV[3])
local grace_ms           = tonumber(ARGV[4])
local channel            = ARGV[5]

local wrong = 0

-- No grace ends, and no connection began, further ahead than this.
local far_ms = 24 * 60 * 60 * 1000

if redis.call('EXISTS', connections) == 0 then
  if redis.call('SISMEMBER', online, user) == 0 then
    return redis.call('ZREM', leaving, user)
  end
  local at = redis.call('ZSCORE', leaving, user)
  if at and tonumber(at) <= now_ms + grace_ms + far_ms then
    return 0
  end
  redis.call('ZADD', leaving, whole(now_ms + grace_ms), user)
  return 1
end

-- Reaping finds only connections that their node owes, and only nodes that the partition lists.
local page = redis.call('HSCAN', connections, 0, 'COUNT', batch_max)[2]
for at = 1, math.min(#page, 2 * batch_max), 2 do
  local incarnation, connection = string.match(page[at], '^(.*)/(%d+)$')
  if incarnation then
    -- The field names the key; its hash tag is the partition's.
    wrong = wrong + redis.call('SADD', owed_begin .. incarnation, user .. '/' .. connection)
    wrong = wrong + redis.call('SADD', nodes, incarnation)
  end
  local since = string.match(page[at + 1], '^%d+$')
  if not since or tonumber(since) > now_ms + far_ms then
    redis.call('HSET', connections, page[at], whole(now_ms))
    wrong = wrong + 1
  end
end

wrong = wrong + redis.call('ZREM', leaving, user)
if redis.call('SADD', online, user) == 1 then
  wrong = wrong + 1
  announce(epoch_key, rev_key, channel, user, '')
end
return wrong
