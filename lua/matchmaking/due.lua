-- Hands out matches and expired tickets that are to be announced, and keeps them from other nodes for a while: if the
-- caller dies before it has announced them, they are handed out again.
--
-- USES     clock, whole
-- KEYS[1]  zset    pending matches, scored by when they are announced (again) (ms)
-- KEYS[2]  zset    users whose ticket expired, scored by when that is announced (again) (ms)
-- ARGV[1]  int     most of each to hand out in this call
-- ARGV[2]  int     ms for which they are kept from others
-- ARGV[3]  string  prefix of the matches' keys (same hash tag as the keys)
--
-- RETURNS   { { match, user, user, … }, { user, … }, now (ms) }
-- PUBLISHES nothing
-- REPEAT    safe: the same are handed out again later

local pending, timeouts  = KEYS[1], KEYS[2]
local batch_max, matches = ARGV[1], ARGV[3]
local keep_ms            = tonumber(ARGV[2])

local again_ms = whole(now_ms + keep_ms)

-- All matches are read first: a migrating slot then stops the script before it has changed anything.
local due, players = redis.call('ZRANGEBYSCORE', pending, '-inf', whole(now_ms), 'LIMIT', 0, batch_max), {}
for at, id in ipairs(due) do
  players[at] = redis.call('HMGET', matches .. id, 'player1', 'player2')
end
local found = {}
for at, id in ipairs(due) do
  local player1, player2 = unpack(players[at])
  if player1 and player2 then
    redis.call('ZADD', pending, again_ms, id)
    found[#found + 1] = id
    found[#found + 1] = player1
    found[#found + 1] = player2
  else
    redis.call('ZREM', pending, id)
  end
end

local expired = redis.call('ZRANGEBYSCORE', timeouts, '-inf', whole(now_ms), 'LIMIT', 0, batch_max)
for _, user in ipairs(expired) do
  redis.call('ZADD', timeouts, again_ms, user)
end
return { found, expired, now_ms }
