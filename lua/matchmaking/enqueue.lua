-- Puts a user in the queue, or leaves the user's place as it is.
--
-- KEYS[1]  zset    users who wait, scored by their place
-- KEYS[2]  zset    the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash    user -> ticket, "<place> <rating> <joined at (ms)> <version>"
-- KEYS[4]  hash    user -> match that has been found for the user and is not over yet
-- KEYS[5]  hash    match -> what is known about it
-- KEYS[6]  zset    users whose ticket ran out, scored by when they are told (again) (ms)
-- KEYS[7]  string  last number given, for places and versions
-- ARGV[1]  int     user id
-- ARGV[2]  int     rating
-- ARGV[3]  int     ms at which the user joined first, where a node asks again after Redis lost data; 0 for now
--
-- RETURNS   { "queued" or "already_queued", ms since when the user waits, or 0 for who is about to be told of a match }
-- PUBLISHES nothing
-- REPEAT    safe: a user has one ticket, and says "already_queued"

local queue, ratings, tickets  = KEYS[1], KEYS[2], KEYS[3]
local playing, matches         = KEYS[4], KEYS[5]
local timeouts, count          = KEYS[6], KEYS[7]
local user, rating, joined_ms  = ARGV[1], ARGV[2], ARGV[3]

-- Who is about to be told of a match waits for nothing else. Who was told may want another one.
local id    = redis.call('HGET', playing, user)
local match = id and redis.call('HGET', matches, id)
match = match and cjson.decode(match)
if match and (not match.taken[user] or joined_ms ~= '0') then
  if match.quit[user] and joined_ms == '0' then
    match.quit[user] = nil
    redis.call('HSET', matches, id, cjson.encode(match))
  end
  return { 'already_queued', 0 }
end
redis.call('HDEL', playing, user)

-- A newer version says that the user wants it still, to whoever is about to take the ticket away.
local version = string.format('%.0f', redis.call('INCR', count))
local ticket  = redis.call('HGET', tickets, user)
if ticket then
  local unchanged, since_ms = string.match(ticket, '^(%S+ %S+ (%S+)) ')
  redis.call('HSET', tickets, user, unchanged .. ' ' .. version)
  return { 'already_queued', tonumber(since_ms) }
end

if joined_ms == '0' then
  local time = redis.call('TIME')
  joined_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
redis.call('ZREM', timeouts, user)
redis.call('ZADD', queue, version, user)
redis.call('ZADD', ratings, rating, string.format('%016.0f:%s', version + 2 ^ 52, user))
redis.call('HSET', tickets, user, table.concat({ version, rating, joined_ms, version }, ' '))
return { 'queued', tonumber(joined_ms) }
