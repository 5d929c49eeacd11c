-- Begins to notify the players of a match: from here on it is too late to cancel.
--
-- USES     match
-- KEYS[1]  hash    the match: state, players, and which nodes have shown it
-- KEYS[2]  zset    pending matches, scored by when they are announced (again) (ms)
-- KEYS[3]  hash    user -> match that is pending for the user
-- ARGV[1]  string  match
-- ARGV[2]  string  "<user>@<incarnation>" for each node on which a player has connections, with spaces in between
--
-- RETURNS   { 'notify', user, … } with those whom some node has not shown the match, { 'cancelled' } where a player left
--           before, or { 'over' }
-- PUBLISHES nothing: the caller does, on the users' topics
-- REPEAT    safe: a node that has shown the match is not asked again

local key, pending, playing = KEYS[1], KEYS[2], KEYS[3]
local id, nodes             = ARGV[1], ARGV[2]

local match = read_match(key, id)
if not match then
  -- Gone, or a stale or hand-edited entry.
  redis.call('DEL', key)
  redis.call('ZREM', pending, id)
  return { 'over' }
end
if match.state == 'cancelled' then
  return { 'cancelled' }
end

-- Only nodes of this call are waited for: the others are gone.
local fields, asked = { 'state', 'notified' }, {}
local answer, named = { 'notify' }, {}
for node in string.gmatch(nodes, '%S+') do
  local field, user = 'node:' .. node, string.match(node, '^%d+')
  if match[field] ~= 'acked' then
    asked[field] = true
    fields[#fields + 1] = field
    fields[#fields + 1] = 'waiting'
    if not named[user] then
      named[user] = true
      answer[#answer + 1] = user
    end
  end
end
if #answer == 1 and is_acked(match) then
  end_match(match, pending, playing)
  return { 'over' }
end
for field, state in pairs(match) do
  if state == 'waiting' and not asked[field] then
    redis.call('HDEL', key, field)
  end
end
redis.call('HSET', key, unpack(fields))
return answer
