-- Records that a node has shown a match to a player. The match is over when every node that had to has.
--
-- USES     match
-- KEYS[1]  hash    the match: state, players, and which nodes have shown it
-- KEYS[2]  zset    pending matches, scored by when they are announced (again) (ms)
-- KEYS[3]  hash    user -> match that is pending for the user
-- ARGV[1]  string  match
-- ARGV[2]  int     the player
-- ARGV[3]  string  incarnation of the node
--
-- RETURNS   'over', or 'pending'
-- PUBLISHES nothing
-- REPEAT    safe: a node is recorded once

local key, pending, playing = KEYS[1], KEYS[2], KEYS[3]
local id, user, incarnation = ARGV[1], ARGV[2], ARGV[3]

local match = read_match(key, id)
if not match then
  return 'over'
end
-- Also a node that was not asked: its connection came while others were notified, and is not to be notified again.
local node, player = 'node:' .. user .. '@' .. incarnation, 'acked:' .. user
match[node], match[player] = 'acked', 'yes'

local is_over = is_acked(match)
for _, state in pairs(match) do
  is_over = is_over and state ~= 'waiting'
end
if is_over then
  end_match(match, pending, playing)
  return 'over'
end
redis.call('HSET', key, node, 'acked', player, 'yes')
return 'pending'
