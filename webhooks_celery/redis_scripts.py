"""What ``redis_transport`` lets the server do in one step, in Lua.

"allow-oom": what is fetched and delivered makes room, so a server whose memory is full must do it.
"""

from __future__ import annotations

#: Forgets messages that were acknowledged. KEYS: the sorted set and the hash; ARGV: their tags.
FORGET = """#!lua flags=allow-oom
redis.call('ZREM', KEYS[1], unpack(ARGV))
redis.call('HDEL', KEYS[2], unpack(ARGV))
"""

#: Takes the oldest messages out of the lists in KEYS[3…] and notes them as kombu does, in the
#: sorted set KEYS[1] and the hash KEYS[2]. ARGV: the time, the time up to which messages that wait
#: are due, how many messages there is room for, for each list whether its messages are acknowledged
#: ("1"), then the tags of messages to forget. Returns in turn the number of the list and a message;
#: the number is below 0 if the message was not noted.
FETCH = """#!lua flags=allow-oom
local first = #KEYS + 2
if ARGV[first] then
    redis.call('ZREM', KEYS[1], unpack(ARGV, first))
    redis.call('HDEL', KEYS[2], unpack(ARGV, first))
end
local room, found = tonumber(ARGV[3]), {}
for i = 3, #KEYS do
    local list, waiting = KEYS[i], KEYS[i] .. ':waiting'
    local due = redis.call('ZRANGEBYSCORE', waiting, '-inf', ARGV[2], 'LIMIT', 0, 100)
    for _, message in ipairs(due) do
        redis.call('LPUSH', list, message)
        redis.call('ZREM', waiting, message)
    end
    while room > 0 do
        local message = redis.call('LINDEX', list, -1)
        if not message then break end
        local readable, tag, info = pcall(function()
            local properties = cjson.decode(message)['properties']
            local info = properties['delivery_info']
            assert(type(properties['delivery_tag']) == 'string' and type(info) == 'table')
            return properties['delivery_tag'], info
        end)
        local noted = readable and ARGV[i + 1] == '1'
        if noted then
            local note = '[' .. message .. ',' .. cjson.encode(info['exchange']) .. ','
                .. cjson.encode(info['routing_key']) .. ']'
            redis.call('ZADD', KEYS[1], ARGV[1], tag)
            redis.call('HSET', KEYS[2], tag, note)
        end
        redis.call('RPOP', list)
        found[#found + 1] = noted and i - 2 or 2 - i
        found[#found + 1] = message
        room = room - 1
    end
end
return found
"""

#: Lets the visibility timeout of messages begin anew, but for those acknowledged or given back.
#: KEYS: the sorted set; ARGV: the time, the tags.
RENEW = """#!lua flags=allow-oom
for i = 2, #ARGV do
    redis.call('ZADD', KEYS[1], 'XX', ARGV[1], ARGV[i])
end
"""

#: Puts a message back if nobody did so before. KEYS: the sorted set, the hash, the lists; ARGV: the
#: tag, the command, the message.
RESTORE = """#!lua flags=allow-oom
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 then
    for i = 3, #KEYS do
        redis.call(ARGV[2], KEYS[i], ARGV[3])
    end
end
"""
