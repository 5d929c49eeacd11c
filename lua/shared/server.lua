-- The server that the data was last seen on. Another server, or this one before its restart, may have known more: users
-- who came back since, and are missing in this data, get the time to be registered again.
--
-- USES   clock, whole
-- GIVES  offline_from(key, patience_ms)  from when on (ms) this server takes users offline; `key` is a string,
--                                        "<run id> <ms>"

local function offline_from(key, patience_ms)
  local server      = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local known, from = string.match(redis.call('GET', key) or '', '^(%x+) (%d+)$')
  if known ~= server then
    from = whole(known and now_ms + patience_ms or 0)
    redis.call('SET', key, server .. ' ' .. from)
  end
  return tonumber(from)
end
