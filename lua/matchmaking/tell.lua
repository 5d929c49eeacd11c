-- Begins to tell the players of a match: from here on it is too late to leave.
--
-- KEYS[1]  hash    match -> what is known about it
-- KEYS[2]  zset    matches that are not over, scored by when they are told (again) (ms)
-- KEYS[3]  hash    user -> match that has been found for the user and is not over yet
-- ARGV[1]  string  match
-- ARGV[2]  string  "<user>@<incarnation>" for each node on which a player has connections, with spaces in between
--
-- RETURNS   { "told", the users to tell, … }, { "left" } where a player has left before, or { "over" }
-- PUBLISHES nothing; whoever calls does, where the users' topics are
-- REPEAT    safe: who has taken the match is not told again

local matches, pending, playing = KEYS[1], KEYS[2], KEYS[3]
local id, nodes                 = ARGV[1], ARGV[2]

local match = redis.call('HGET', matches, id)
if not match then
  return { 'over' }
end
match = cjson.decode(match)
if match.left and not match.told then
  return { 'left' }
end

local took = {}
for _, node in ipairs(match.took) do
  took[node] = true
end
match.waiting, match.told = {}, true
local answer, named = { 'told' }, {}
for node in string.gmatch(nodes, '%S+') do
  local user = string.match(node, '^%d+')
  if not took[node] then
    match.waiting[#match.waiting + 1] = node
    if not named[user] then
      named[user] = true
      answer[#answer + 1] = user
    end
  end
end

-- Whoever had not taken it yet may be gone by now, without anybody left to tell.
local a, b = match.users[1], match.users[2]
if #match.waiting == 0 and match.taken[a] and match.taken[b] then
  redis.call('HDEL', matches, id)
  redis.call('ZREM', pending, id)
  for _, user in ipairs(match.users) do
    if redis.call('HGET', playing, user) == id then
      redis.call('HDEL', playing, user)
    end
  end
  return { 'over' }
end
redis.call('HSET', matches, id, cjson.encode(match))
return answer
