-- Gives out who is to be told of a match, or that a ticket ran out, and keeps them from other nodes for a while: should
-- this node die before they are told, they are given out again.
--
-- KEYS[1]  zset    matches that are not over, scored by when they are told (again) (ms)
-- KEYS[2]  hash    match -> what is known about it
-- KEYS[3]  zset    users whose ticket ran out, scored by when they are told (again) (ms)
-- ARGV[1]  int     most of each to give out in this call
-- ARGV[2]  int     ms for which they are kept from others
--
-- RETURNS   { { match, user, user, … }, { user, … }, now (ms) }
-- PUBLISHES nothing
-- REPEAT    safe: what was given out comes again later

local pending, matches, timeouts = KEYS[1], KEYS[2], KEYS[3]
local batch_max, keep_ms         = ARGV[1], tonumber(ARGV[2])

local time     = redis.call('TIME')
local now_ms   = time[1] * 1000 + math.floor(time[2] / 1000)
local now      = string.format('%.0f', now_ms)
local again_ms = string.format('%.0f', now_ms + keep_ms)

local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', pending, '-inf', now, 'LIMIT', 0, batch_max)) do
  local match = redis.call('HGET', matches, id)
  if match then
    redis.call('ZADD', pending, again_ms, id)
    local users = cjson.decode(match).users
    found[#found + 1] = id
    found[#found + 1] = users[1]
    found[#found + 1] = users[2]
  else
    redis.call('ZREM', pending, id)
  end
end

local ran_out = redis.call('ZRANGEBYSCORE', timeouts, '-inf', now, 'LIMIT', 0, batch_max)
for _, user in ipairs(ran_out) do
  redis.call('ZADD', timeouts, again_ms, user)
end
return { found, ran_out, now_ms }
