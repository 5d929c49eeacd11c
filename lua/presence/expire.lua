-- Takes offline the users whose grace is over, at most a batch of them, and announces them.
--
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
-- RETURNS   { { users taken offline }, ms until the next one is due or -1 where that is unknown }
-- PUBLISHES { epoch, rev, online = [], offline = [users] } when there are any
-- REPEAT    safe: whoever was taken offline is no longer in the zset

local leaving, online    = KEYS[1], KEYS[2]
local rev_key, epoch_key = KEYS[3], KEYS[4]
local server_key         = KEYS[5]
local batch_max          = tonumber(ARGV[1])
local channel            = ARGV[2]
local ahead_ms           = tonumber(ARGV[3])
local patience_ms        = tonumber(ARGV[4])

local time   = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- Another server, or this one before it was restarted, may have known more: whoever came back since, and is
-- missing in this data, gets the time to be registered again.
local server      = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local known, from = string.match(redis.call('GET', server_key) or '', '^(%x+) (%d+)$')
if known ~= server then
  from = string.format('%.0f', known and now_ms + patience_ms or 0)
  redis.call('SET', server_key, server .. ' ' .. from)
end
if now_ms < tonumber(from) and ahead_ms == 0 then
  return { {}, -1 }
end

-- register.lua takes a user who is back out of the zset, so everybody found here has no connection.
local due = redis.call('ZRANGEBYSCORE', leaving, '-inf', string.format('%.0f', now_ms + ahead_ms),
  'LIMIT', 0, batch_max)
local offline = {}
for _, user in ipairs(due) do
  redis.call('ZREM', leaving, user)
  if redis.call('SREM', online, user) == 1 then
    offline[#offline + 1] = user
  end
end

if #offline > 0 then
  redis.call('SETNX', epoch_key, string.format('%x%05x', time[1], time[2]))
  local epoch = redis.call('GET', epoch_key)
  local rev   = redis.call('INCR', rev_key)
  redis.call('SPUBLISH', channel, string.format(
    '{"epoch":"%s","rev":%.0f,"online":[],"offline":[%s]}', epoch, rev, table.concat(offline, ',')))
end

local next_one = redis.call('ZRANGE', leaving, 0, 0, 'WITHSCORES')
if #next_one == 0 then
  return { offline, -1 }
end
return { offline, math.max(0, tonumber(next_one[2]) - now_ms) }
