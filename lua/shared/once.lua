-- Answers to the requests of this minute and the last one, in two hashes that take turns: longer than a node repeats a
-- command whose answer was lost. Request -> answer; "minute" -> the minute that the answers are of.
--
-- USES   clock, whole
-- GIVES  requests_of(even, odd)                the hash of this minute, that of the last one, and the minute
-- GIVES  answered(even, odd, request)          the answer given before, or nil
-- GIVES  remember(even, odd, request, answer)  the answer, a list of words and whole numbers
-- GIVES  is_begun                              whether `answered` found the hash of this minute begun

local is_begun

local function requests_of(even, odd)
  local minute = math.floor(time[1] / 60)
  if minute % 2 == 0 then
    return even, odd, minute
  end
  return odd, even, minute
end

local function answered(even, odd, request)
  local this, last, minute = requests_of(even, odd)
  local text, begun = unpack(redis.call('HMGET', this, request, 'minute'))
  is_begun = tonumber(begun) == minute
  text = text or redis.call('HGET', last, request)
  if not text then
    return nil
  end
  local answer = {}
  for word in string.gmatch(text, '%S+') do
    answer[#answer + 1] = tonumber(word) or word
  end
  return answer
end

local function remember(even, odd, request, answer)
  local this, _, minute = requests_of(even, odd)
  local words = {}
  for at, word in ipairs(answer) do
    words[at] = type(word) == 'number' and whole(word) or word
  end
  local text = table.concat(words, ' ')
  if is_begun then
    redis.call('HSET', this, request, text)
  else
    redis.call('UNLINK', this)
    -- Longer than an entry of a listpack, which would be searched from end to end.
    redis.call('HSET', this, 'minute', string.format('%65d', minute), request, text)
    redis.call('PEXPIRE', this, 120000)
  end
  return answer
end
