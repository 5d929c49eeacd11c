-- Answers to the requests of this minute and the last one, in two hashes that take turns: longer than a node repeats a
-- command whose answer was lost. Request -> answer; "minute" -> the minute that the answers are of.
--
-- USES   clock, whole
-- GIVES  answered(even, odd, request)          the answer given before, or nil
-- GIVES  remember(even, odd, request, answer)  the answer, a list of words and whole numbers
-- GIVES  requests_of(even, odd)                the hash of this minute, and that of the last one

local function requests_of(even, odd)
  if math.floor(time[1] / 60) % 2 == 0 then
    return even, odd
  end
  return odd, even
end

local function answered(even, odd, request)
  local this, last = requests_of(even, odd)
  local text = redis.call('HGET', this, request) or redis.call('HGET', last, request)
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
  local words = {}
  for at, word in ipairs(answer) do
    words[at] = type(word) == 'number' and whole(word) or word
  end
  local this, minute = requests_of(even, odd), math.floor(time[1] / 60)
  if tonumber(redis.call('HGET', this, 'minute')) ~= minute then
    redis.call('UNLINK', this)
    redis.call('HSET', this, 'minute', whole(minute))
    redis.call('PEXPIRE', this, 120000)
  end
  redis.call('HSET', this, request, table.concat(words, ' '))
  return answer
end
