-- Ends a match that falls through, and sends the players who are still online to the front of the queue.
--
-- USES     whole, ticket, match
-- KEYS[1]  zset    users who wait, scored by place
-- KEYS[2]  zset    the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash    the match: state, players, and which nodes have shown it
-- KEYS[4]  hash    user -> match that is pending for the user
-- KEYS[5]  zset    pending matches, scored by when they are announced (again) (ms)
-- KEYS[6]  string  last number assigned, for places, versions and matches
-- KEYS[7]  hash    how far tickets were scanned: "fresh" (place), "again" (place), "next" round (ms)
-- ARGV[1]  string  match
-- ARGV[2]  string  players who are still online, with spaces in between
-- ARGV[3]  string  prefix of the tickets' keys (same hash tag as the keys)
--
-- RETURNS   players who were sent back: none who has withdrawn or joined again since, and none at all if both have been
--           shown the match
-- PUBLISHES nothing
-- REPEAT    safe: the match is gone

local at                   = { queue = KEYS[1], ratings = KEYS[2] }
local key, playing         = KEYS[3], KEYS[4]
local pending, count, scan = KEYS[5], KEYS[6], KEYS[7]
local id, players          = ARGV[1], ARGV[2]
local tickets              = ARGV[3]

local match = read_match(key, id)
if not match then
  -- Gone, or a stale or hand-edited entry.
  redis.call('DEL', key)
  redis.call('ZREM', pending, id)
  return 0
end

local is_online = {}
for user in string.gmatch(players, '%d+') do
  is_online[user] = true
end

-- A match that both have been shown takes place, whichever node is still waited for.
local function wants_back(user)
  return is_online[user] and not match['withdrawn:' .. user] and not is_acked(match)
    and redis.call('HGET', playing, user) == id
end

local sent_back = 0
for number = 1, 2 do
  local user = match['player' .. number]
  local own  = tickets .. user
  if wants_back(user) and not read_ticket(own, user) then
    local version = redis.call('INCR', count)
    local first   = redis.call('ZRANGE', at.queue, 0, 0, 'WITHSCORES')[2] or version
    add_ticket(at, { key = own, user = user, place = whole(first - 1), rating = match['rating' .. number],
      joined = match['joined' .. number], version = whole(version) })
    sent_back = sent_back + 1
  end
end
end_match(match, pending, playing)

-- A round that has begun continues, so that it reaches the last ticket. Otherwise one begins at once.
redis.call('HSET', scan, 'next', 0)
return sent_back
