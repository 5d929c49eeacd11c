-- Takes a user out of the queue, and out of a match that nobody has been told about yet.
--
-- KEYS[1]  zset    users who wait, scored by their place
-- KEYS[2]  zset    the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash    user -> ticket, "<place> <rating> <joined at (ms)> <version>"
-- KEYS[4]  hash    user -> match that has been found for the user and is not over yet
-- KEYS[5]  hash    match -> what is known about it
-- KEYS[6]  zset    matches that are not over, scored by when they are told (again) (ms)
-- KEYS[7]  zset    users whose ticket ran out, scored by when they are told (again) (ms)
-- ARGV[1]  int     user id
-- ARGV[2]  int     version of the ticket that is meant; 0 for any, and for matches, too
--
-- RETURNS   1 where the user was taken out of anything, otherwise 0
-- PUBLISHES nothing
-- REPEAT    safe: there is nothing left to be taken out of

local queue, ratings, tickets = KEYS[1], KEYS[2], KEYS[3]
local playing, matches        = KEYS[4], KEYS[5]
local pending, timeouts       = KEYS[6], KEYS[7]
local user, meant             = ARGV[1], ARGV[2]

local ticket = redis.call('HGET', tickets, user)
if ticket then
  local place, version = string.match(ticket, '^(%S+) %S+ %S+ (%S+)$')
  if meant ~= '0' and meant ~= version then
    return 0
  end
  redis.call('HDEL', tickets, user)
  redis.call('ZREM', queue, user)
  redis.call('ZREM', ratings, string.format('%016.0f:%s', place + 2 ^ 52, user))
  return 1
end
if meant ~= '0' then
  return 0
end

local left  = redis.call('ZREM', timeouts, user)
local id    = redis.call('HGET', playing, user)
local match = id and redis.call('HGET', matches, id)
if not match then
  return left
end
match = cjson.decode(match)
if match.told then
  -- Too late. But should the match not take place, nobody puts the user back in the queue.
  match.quit[user] = true
  redis.call('HSET', matches, id, cjson.encode(match))
  return left
end
match.left = true
redis.call('HDEL', playing, user)
redis.call('HSET', matches, id, cjson.encode(match))
redis.call('ZADD', pending, 0, id)
return 1
