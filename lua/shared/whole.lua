-- Whole numbers as text. Lua's own conversion keeps 14 digits, this one all digits up to 2^53 - 1.
--
-- GIVES  whole(number)  the text

local function whole(number)
  return string.format('%d', number)
end
