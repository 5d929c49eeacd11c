-- The answer to a request, kept for a minute: longer than a node repeats a command whose answer was lost.
--
-- USES   whole
-- GIVES  answered(request)          the answer given before, or nil
-- GIVES  remember(request, answer)  the answer, a list of words and whole numbers

local function answered(request)
  local text = redis.call('GET', request)
  if not text then
    return nil
  end
  local answer = {}
  for word in string.gmatch(text, '%S+') do
    answer[#answer + 1] = tonumber(word) or word
  end
  return answer
end

local function remember(request, answer)
  local words = {}
  for at, word in ipairs(answer) do
    words[at] = type(word) == 'number' and whole(word) or word
  end
  redis.call('SET', request, table.concat(words, ' '), 'PX', 60000)
  return answer
end
