-- Runs each command that the hub needs once, on keys that are gone afterwards, and reports the refused ones: a right is
-- missing, the memory is full, the server is a replica.
--
-- KEYS[1]  string  scratch key, and scratch channel
-- KEYS[2]  hash    scratch key
-- KEYS[3]  set     scratch key
-- KEYS[4]  zset    scratch key
-- KEYS[5]  list    scratch key
--
-- RETURNS   { command, error, … } of the refused ones
-- PUBLISHES an empty message on the scratch channel, to which nobody subscribes
-- REPEAT    safe: it leaves nothing behind

local text, hash, set, zset, list = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

-- The keys expire by themselves where DEL is refused.
local calls = {
  { 'SET', text, '1', 'PX', '10000' },
  { 'INCR', text },
  { 'GET', text },
  { 'MGET', text },
  { 'EXISTS', text },
  { 'HSET', hash, 'a', '1' },
  { 'PEXPIRE', hash, '10000' },
  { 'HSETNX', hash, 'a', '1' },
  { 'HINCRBY', hash, 'a', '1' },
  { 'HGET', hash, 'a' },
  { 'HMGET', hash, 'a' },
  { 'HGETALL', hash },
  { 'HLEN', hash },
  { 'HEXISTS', hash, 'a' },
  { 'HSCAN', hash, '0' },
  { 'HDEL', hash, 'b' },
  { 'SADD', set, 'a' },
  { 'PEXPIRE', set, '10000' },
  { 'SCARD', set },
  { 'SISMEMBER', set, 'a' },
  { 'SMEMBERS', set },
  { 'SSCAN', set, '0' },
  { 'SREM', set, 'b' },
  { 'SRANDMEMBER', set, '1' },
  { 'ZADD', zset, '1', 'a' },
  { 'PEXPIRE', zset, '10000' },
  { 'ZCARD', zset },
  { 'ZSCORE', zset, 'a' },
  { 'ZRANGE', zset, '0', '0' },
  { 'ZRANGEBYSCORE', zset, '1', '1' },
  { 'ZREVRANGEBYSCORE', zset, '1', '1' },
  { 'ZREM', zset, 'b' },
  { 'RPUSH', list, 'a' },
  { 'PEXPIRE', list, '10000' },
  { 'UNLINK', text },
  { 'DEL', text, hash, set, zset, list },
  { 'TIME' },
  { 'INFO', 'server' },
  { 'SPUBLISH', text, '' },
}

local refused = {}
for _, call in ipairs(calls) do
  local answer = redis.pcall(unpack(call))
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = call[1]
    refused[#refused + 1] = answer.err
  end
end
return refused
