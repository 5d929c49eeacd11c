-- Pending matches: those that not every node has shown to its player. One hash each:
--
--   state                      "made", then "notified" (too late to cancel), or "cancelled" by a player
--   player1, player2           the players, and what their tickets held:
--   rating1, joined1           of player1
--   rating2, joined2           of player2
--   node:<user>@<incarnation>  "waiting" until that node has shown the match to that player, then "acked"
--   acked:<user>               "yes" once any node has
--   withdrawn:<user>           "yes" for a player who left when it was too late: not to be requeued
--
-- GIVES  read_match(key, id)                    the fields, with `key` and `id`, or nil
-- GIVES  pending_match(playing, matches, user)  the match that is pending for a user, or nil
-- GIVES  is_acked(match)                        whether both players have been shown the match
-- GIVES  end_match(match, pending, playing)     removes it

local function read_match(key, id)
  local fields, match = redis.call('HGETALL', key), { key = key, id = id }
  for at = 1, #fields, 2 do
    match[fields[at]] = fields[at + 1]
  end
  local is_whole = match.player1 and match.rating1 and match.joined1
    and match.player2 and match.rating2 and match.joined2
  return is_whole and match or nil
end

local function pending_match(playing, matches, user)
  local id = redis.call('HGET', playing, user)
  return id and read_match(matches .. id, id)
end

local function is_acked(match)
  return match['acked:' .. match.player1] and match['acked:' .. match.player2]
end

local function end_match(match, pending, playing)
  redis.call('DEL', match.key)
  redis.call('ZREM', pending, match.id)
  for _, player in ipairs({ match.player1, match.player2 }) do
    if redis.call('HGET', playing, player) == match.id then
      redis.call('HDEL', playing, player)
    end
  end
end
