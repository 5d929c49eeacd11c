-- Ends a match that does not take place, and sends those who are still there to the front of the queue.
--
-- KEYS[1]  zset    users who wait, scored by their place
-- KEYS[2]  zset    the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash    user -> ticket, "<place> <rating> <joined at (ms)> <version>"
-- KEYS[4]  hash    user -> match that has been found for the user and is not over yet
-- KEYS[5]  hash    match -> what is known about it
-- KEYS[6]  zset    matches that are not over, scored by when they are told (again) (ms)
-- KEYS[7]  string  last number given, for places and versions
-- KEYS[8]  hash    how far tickets were looked at: "fresh" (place), "again" (place), "next" round (ms)
-- ARGV[1]  string  match
-- ARGV[2]  string  players who are still there, with spaces in between
--
-- RETURNS   how many were sent back: nobody who has left, or queued again, since; nobody at all if both were told
-- PUBLISHES nothing
-- REPEAT    safe: the match is gone

local queue, ratings, tickets = KEYS[1], KEYS[2], KEYS[3]
local playing, matches        = KEYS[4], KEYS[5]
local pending, count, looked  = KEYS[6], KEYS[7], KEYS[8]
local id, players             = ARGV[1], ARGV[2]

local match = redis.call('HGET', matches, id)
if not match then
  return 0
end
match = cjson.decode(match)
redis.call('HDEL', matches, id)
redis.call('ZREM', pending, id)

-- Both were told, whoever else is waited for: the match takes place.
local takes_place = match.taken[match.users[1]] and match.taken[match.users[2]]

local is_there = {}
for user in string.gmatch(players, '%d+') do
  is_there[user] = true
end
local sent_back = 0
for i, user in ipairs(match.users) do
  if redis.call('HGET', playing, user) == id then
    redis.call('HDEL', playing, user)
    local wants = is_there[user] and not match.quit[user] and not takes_place
    if wants and redis.call('HEXISTS', tickets, user) == 0 then
      local rating, joined_ms = string.match(match.tickets[i], '^%S+ (%S+) (%S+)')
      local version = redis.call('INCR', count)
      local first   = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')[2] or version
      local place   = string.format('%.0f', first - 1)
      redis.call('ZADD', queue, place, user)
      redis.call('ZADD', ratings, rating, string.format('%016.0f:%s', place + 2 ^ 52, user))
      redis.call('HSET', tickets, user, table.concat({ place, rating, joined_ms, string.format('%.0f', version) }, ' '))
      sent_back = sent_back + 1
    end
  end
end
-- The round that has begun goes on: whoever is far back is to be looked at, too. Where none has, one begins at once.
redis.call('HSET', looked, 'next', 0)
return sent_back
