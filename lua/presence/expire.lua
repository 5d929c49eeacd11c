-- Takes offline the users whose grace is over, at most a batch of them, and announces them.
--
-- USES     clock, whole, epoch, announce
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
-- RETURNS   { { users taken offline }, ms until the next one is due or nil where that is unknown }
-- PUBLISHES { epoch, rev, online = [], offline = [users] } when there are any
-- REPEAT    safe: a user who was taken offline has left the zset

local leaving, online    = KEYS[1], KEYS[2]
local rev_key, epoch_key = KEYS[3], KEYS[4]
local server_key         = KEYS[5]
local batch_max          = tonumber(ARGV[1])
local channel            = ARGV[2]
local ahead_ms           = tonumber(ARGV[3])
local patience_ms        = tonumber(ARGV[4])

-- Another server, or this one before its restart, may have known more: users who came back since, and are missing in
-- this data, get the time to be registered again.
local server      = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local known, from = string.match(redis.call('GET', server_key) or '', '^(%x+) (%d+)$')
if known ~= server then
  from = whole(known and now_ms + patience_ms or 0)
  redis.call('SET', server_key, server .. ' ' .. from)
end
if now_ms < tonumber(from) and ahead_ms == 0 then
  return { {}, false }
end

-- register.lua takes a user who is back out of the zset, so nobody found here has a connection.
local due = redis.call('ZRANGEBYSCORE', leaving, '-inf', whole(now_ms + ahead_ms), 'LIMIT', 0, batch_max)
local offline = {}
for _, user in ipairs(due) do
  redis.call('ZREM', leaving, user)
  if redis.call('SREM', online, user) == 1 then
    offline[#offline + 1] = user
  end
end

if #offline > 0 then
  announce(epoch_key, rev_key, channel, '', table.concat(offline, ','))
end

local next_one = redis.call('ZRANGE', leaving, 0, 0, 'WITHSCORES')
if #next_one == 0 then
  return { offline, false }
end
return { offline, math.max(0, tonumber(next_one[2]) - now_ms) }
