-- The name of this life of the data: the microsecond in which it began, so no other life has the same name.
--
-- USES   clock
-- GIVES  epoch_at(key)  the name; the first caller sets it

local function epoch_at(key)
  local epoch = redis.call('GET', key)
  if not epoch then
    epoch = string.format('%x%05x', time[1], time[2])
    redis.call('SET', key, epoch)
  end
  return epoch
end
