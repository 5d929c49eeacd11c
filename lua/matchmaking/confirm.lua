-- A node has shown a match to a player's connections. The match is over once every node has that it was to be shown on.
--
-- KEYS[1]  hash    match -> what is known about it
-- KEYS[2]  zset    matches that are not over, scored by when they are told (again) (ms)
-- KEYS[3]  hash    user -> match that has been found for the user and is not over yet
-- ARGV[1]  string  match
-- ARGV[2]  int     the player
-- ARGV[3]  string  incarnation of the node
--
-- RETURNS   1 where the match is over, otherwise 0
-- PUBLISHES nothing
-- REPEAT    safe: a node has shown it or not

local matches, pending, playing = KEYS[1], KEYS[2], KEYS[3]
local id, user, incarnation     = ARGV[1], ARGV[2], ARGV[3]

local match = redis.call('HGET', matches, id)
if not match then
  return 1
end
match = cjson.decode(match)
local node, waiting = user .. '@' .. incarnation, {}
for _, other in ipairs(match.waiting) do
  if other ~= node then
    waiting[#waiting + 1] = other
  end
end
match.waiting, match.taken[user] = waiting, true

-- Also a node that was not asked: its connection came while others were told, and is not to be told again.
local is_known = false
for _, other in ipairs(match.took) do
  is_known = is_known or other == node
end
if not is_known then
  match.took[#match.took + 1] = node
end

if #waiting > 0 or not match.taken[match.users[1]] or not match.taken[match.users[2]] then
  redis.call('HSET', matches, id, cjson.encode(match))
  return 0
end
redis.call('HDEL', matches, id)
redis.call('ZREM', pending, id)
for _, player in ipairs(match.users) do
  if redis.call('HGET', playing, player) == id then
    redis.call('HDEL', playing, player)
  end
end
return 1
