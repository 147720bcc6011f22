-- The credential proxy's part in Lua: what a request to an ended host may be, and which credential it leaves with.
-- nginx.conf calls ready(), access(), refused(), log() and self_test(). There is one process and one Lua machine, so
-- plain variables count exactly. Variables of nginx, unlike ngx.ctx, outlive an error page: $key is the host as settings
-- have it, $verdict is empty until a request is "blocked" or "failed", $reason is why, $held the bytes held for it,
-- $note "message" if it counts against the limit or "self-test" if it does not leave, $last "close" if its connection to
-- the host ends with it.

local cjson = require "cjson"
local byte, find, lower, match, sub = string.byte, string.find, string.lower, string.match, string.sub

local API = "api.anthropic.com"
local FOLDER = "/run/proxy/"
local MIB = 1048576
local LARGEST = 32 * MIB -- of a body that is judged; nginx.conf has it too
local MOST_HELD = 128 * MIB -- of all that are held at once; each is there until its answer has ended
local DEEPEST = 200
local STEP = MIB / 4 -- bytes judged before other requests have their turn
local LIMITS = "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes pids/pids.max "
  .. "memory.max memory.swap.max pids.max"
local FETCH = 'to allow it: "api: {server_side_fetch: true}" in the bottle\'s manifest'

local M = {}

local function read(path)
  local file = assert(io.open(path, "rb"))
  local data = file:read("*a")
  file:close()
  return data
end

-- While nginx starts. From here on the secrets are in this process's memory alone.
local settings = cjson.decode(read(FOLDER .. "settings.json"))
assert(os.remove(FOLDER .. "settings.json"))
local messages, held, logged = 0, 0, 0

-- nginx listens by now, and has read its key.
function M.ready()
  assert(os.remove(FOLDER .. "leaf.key"))
  io.stdout:setvbuf("no")
  io.stdout:write("up " .. ngx.encode_base64(read(FOLDER .. "authority.pem")) .. "\n")
end

local function printable(text, longest)
  return (sub(text, 1, longest):gsub("[^\32-\126]", "?"))
end

-- 400 since Claude Code retries no 400: the user sees the reason at once.
local function refuse(reason, status)
  ngx.req.discard_body() -- else what follows on the connection would be read as its next request
  ngx.var.verdict = "blocked"
  ngx.var.reason = reason
  ngx.exit(status or (ngx.var.key == API and 400 or 403))
end

-- What the API would fetch, run or connect to for its caller, by position in a request's schema. A table leads on to
-- the keys of an object, or of each object in a list; a string is a key that must not be there; a function gets the
-- string there, and returns whether it may be. Everything else, such as `input` and `input_schema`, is not looked at.
local SOURCE, BLOCK, TOOL, MESSAGE, REQUEST = {}, {}, {}, {}, {}
local SOURCES = { base64 = true, text = true, content = true }
SOURCE.type = function(kind) return SOURCES[kind] end
SOURCE.url = "a source's url"
SOURCE.content = BLOCK
BLOCK.source = SOURCE -- of an image or a document
BLOCK.content = BLOCK -- of the result of a tool, or of a search
TOOL.type = function(kind) return kind == "custom" or find(kind, "^web_search_") end
MESSAGE.content = BLOCK
REQUEST.mcp_servers = "mcp_servers"
REQUEST.container = "container"
REQUEST.tools = TOOL
REQUEST.system = BLOCK
REQUEST.messages = MESSAGE
REQUEST.requests = { params = REQUEST } -- a batch's, if the bottle may make any
local LONGEST = #"mcp_servers" * #"\\u0000" -- of a key that leads on, with every letter escaped
local BETAS = { "^mcp%-", "^files%-api%-", "^code%-execution%-", "^skills%-", "^web%-fetch%-" }

local WORDS = { "true", "false", "null" }
local ESCAPES = {}
for letter in ('"\\/bfnrt'):gmatch(".") do ESCAPES[byte(letter)] = true end

local function wrong(reason)
  error({ reason = reason }, 0)
end

local function malformed(what)
  wrong("the body of a request must be JSON as in RFC 8259; this one has " .. what)
end

-- Raises a table with a `reason` unless `body` is a request that has the API do nothing for its caller. Strict, since
-- the API's own reader of JSON must not understand anything else: no second key of a name that is judged, nothing after
-- the value, no byte that is not UTF-8. What is compiled fast, loops over bytes, reads the most of it.
local function judge(body)
  local turn = STEP
  local value

  local function pause(place)
    if place >= turn then
      turn = place + STEP
      ngx.sleep(0.001) -- with 0 this nginx would come straight back, before it has looked at any connection
    end
  end

  local function space(place)
    local char = byte(body, place)
    while char == 32 or char == 10 or char == 13 or char == 9 do
      place = place + 1
      pause(place)
      char = byte(body, place)
    end
    return place, char
  end

  -- RFC 3629's table: no overlong form, no surrogate, nothing after U+10FFFF.
  local function character(place, first)
    local more, low, high = 0, 0x80, 0xBF
    if first >= 0xC2 and first <= 0xDF then
      more = 1
    elseif first >= 0xE0 and first <= 0xEF then
      more, low, high = 2, first == 0xE0 and 0xA0 or low, first == 0xED and 0x9F or high
    elseif first >= 0xF0 and first <= 0xF4 then
      more, low, high = 3, first == 0xF0 and 0x90 or low, first == 0xF4 and 0x8F or high
    end
    for next = place + 1, place + more do
      local char = byte(body, next) or 0
      if char < low or char > high then more = 0 end
      low, high = 0x80, 0xBF
    end
    if more == 0 then malformed("bytes that are no UTF-8") end
    return place + more + 1
  end

  -- Returns the place of the quote that ends a string whose first character is at `place`.
  local function text(place)
    while true do
      local char = byte(body, place) or 0
      if char == 34 then
        return place
      elseif char < 32 then
        malformed("a control character in a string, or no end")
      elseif char == 92 then
        local escape = byte(body, place + 1)
        local unicode = escape == 117 and find(body, "^%x%x%x%x", place + 2)
        if not unicode and not ESCAPES[escape] then malformed("an escape that there is not") end
        place = place + (unicode and 6 or 2)
      elseif char < 128 then
        place = place + 1
      else
        place = character(place, char)
      end
      pause(place)
    end
  end

  -- A short string without its escapes, as far as a name in the tables above could be written with them.
  local function plain(first, last)
    local raw = sub(body, first, math.min(last, first + LONGEST))
    return (raw:gsub("\\u00(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
  end

  local function digits(place)
    local first = place
    local char = byte(body, place)
    while char and char >= 48 and char <= 57 do
      place = place + 1
      pause(place)
      char = byte(body, place)
    end
    if place == first then malformed("something that is no value") end
    return place, char
  end

  local function number(place, char)
    if char == 45 then place = place + 1 end
    if byte(body, place) == 48 then
      place, char = place + 1, byte(body, place + 1)
    else
      place, char = digits(place)
    end
    if char == 46 then place, char = digits(place + 1) end
    if char == 69 or char == 101 then
      local sign = byte(body, place + 1)
      place = digits(place + ((sign == 43 or sign == 45) and 2 or 1))
    end
    return place
  end

  -- Reads a key and its colon; returns the place after it, the rule for what follows, and the key if there is a rule.
  local function member(place, char, judged, seen)
    if char ~= 34 then malformed("no key where one must be") end
    local stop = text(place + 1)
    local key = judged and plain(place + 1, stop - 1)
    local rule = judged and judged[key]
    if rule and seen[key] then
      wrong('the key "' .. key .. '" is there twice')
    elseif type(rule) == "string" then
      wrong(rule .. " would have the API connect, fetch or run something; " .. FETCH)
    end
    if rule then seen[key] = true end
    place, char = space(stop + 1)
    if char ~= 58 then malformed("no colon after a key") end
    place = space(place + 1)
    return place, rule, rule and key
  end

  -- Reads an object or a list, whose members are judged as itself, from after its bracket to after the other one.
  local function members(place, judged, depth, close)
    local seen, rule, key, char = {}, judged, nil, nil
    place, char = space(place)
    if char == close then return place + 1 end
    while true do
      if close == 125 then
        place, rule, key = member(place, char, judged, seen)
      end
      place, char = space(value(place, rule, depth, key))
      if char == close then return place + 1 end
      if char ~= 44 then malformed("an object or a list that does not end") end
      place, char = space(place + 1)
    end
  end

  function value(place, judged, depth, key)
    pause(place)
    local char = byte(body, place)
    local test = type(judged) == "function" and judged
    if char == 34 then
      local stop = text(place + 1)
      if test and not test(plain(place + 1, stop - 1)) then
        local shown = printable(sub(body, place, stop), 60)
        wrong('"' .. key .. '": ' .. shown .. " would have the API fetch or run something; " .. FETCH)
      end
      return stop + 1
    elseif test then
      wrong('"' .. key .. '" must be a string')
    elseif char == 123 or char == 91 then
      if depth == DEEPEST then wrong("the body of a request is nested more than " .. DEEPEST .. " deep") end
      return members(place + 1, judged, depth + 1, char + 2) -- as ASCII has them
    end
    if not char or char < 97 then return number(place, char) end
    for _, word in ipairs(WORDS) do
      if char == byte(word) and sub(body, place, place + #word - 1) == word then return place + #word end
    end
    malformed("something that is no value")
  end

  local place, char = space(1)
  if char ~= 123 then malformed("no object") end
  _, char = space(value(place, REQUEST, 0))
  if char then malformed("something after its end") end
end

local FAILURES = {
  [421] = "a request's Host must be the name for which TLS was begun",
  [413] = "the body of a request must be at most 32 MiB",
  [502] = "the host cannot be reached, or its certificate is not trusted (see ca_certs)",
  [504] = "the host does not answer",
}

-- Whether a server that goes by the Content-Type reads the same as the judge: in UTF-7 the same bytes have other keys.
local function is_json(kind)
  if type(kind) ~= "string" then
    return not kind
  end
  local media, charset = match(lower(kind), "^([^;%s]+)%s*;?%s*(.*)$")
  return media == "application/json" and (charset == "" or match(charset, '^charset="?utf%-8"?$'))
end

-- Reads a request's body, and judges it. nginx has it then, and sends it as it came.
local function hold(method)
  local headers = ngx.req.get_headers(0)
  if not headers["content-length"] and not headers["transfer-encoding"] and method ~= "POST" then
    return
  end
  if headers["content-encoding"] and not settings.server_side_fetch then
    return refuse("the body of a request must not be compressed")
  end
  if not is_json(headers["content-type"]) then
    return refuse("the body of a request must be application/json in UTF-8")
  end
  local size = headers["transfer-encoding"] and LARGEST or tonumber(headers["content-length"]) or 0
  if held + size > MOST_HELD then
    return refuse("too many large requests at once", 529)
  end
  local function hold_bytes(count)
    held = held + count - (tonumber(ngx.var.held) or 0)
    ngx.var.held = count
  end
  hold_bytes(size)
  ngx.req.read_body()
  local body = ngx.req.get_body_data() or ""
  if ngx.req.get_body_file() then -- only a chunked one that is more framing than content
    return refuse(FAILURES[413], 413)
  end
  hold_bytes(#body)
  if settings.server_side_fetch then return end
  local good, why = pcall(judge, body)
  body = nil
  if size > MIB then collectgarbage() end -- or Lua keeps its copy of it for long
  if not good then refuse(type(why) == "table" and why.reason or error(why)) end
end

-- Whether a server might read a path as another one. Of the default hosts' paths none has a "%", so none is let through
-- that could stand for a letter of a judged one.
local function ambiguous(path, default)
  local folded = lower(path)
  for _, part in ipairs({ "%2e", "%2f", "%5c", "%25", "%3b", "%7f", "%c0", "%c1", "\\", ";", "//", "#" }) do
    if find(folded, part, 1, true) then return part end
  end
  local control = match(path, "%c") or match(path, "%%[01]%x")
  return control or match(path .. "/", "/%.%.?/") or (default and match(path, "%%"))
end

local function listed(pairs_, method, path)
  for _, pair in ipairs(pairs_) do
    local prefix = sub(pair[2], -1) == "/" and sub(path, 1, #pair[2]) == pair[2]
    if (pair[1] == "*" or pair[1] == method) and (pair[2] == path or prefix) then return true end
  end
end

local FOREIGN = { "auth", "cookie", "api%-?key", "key$", "token", "jwt", "signature", "credential", "secret", "passw" }
local KEPT = { ["idempotency-key"] = true }
local OVERRIDES = { "override", "^x%-http%-", "^x%-method", "^x%-original%-", "^x%-rewrite%-", "forwarded", "^x%-host" }

local function matches(name, patterns)
  for _, pattern in ipairs(patterns) do
    if find(name, pattern) then return true end
  end
end

-- Drops every header that could be a credential, then sets the session's own: nothing of a foreign one is left.
local function sign(host)
  for name in pairs(ngx.req.get_headers(0, true)) do
    local folded = lower(name)
    local foreign = matches(folded, FOREIGN) and not KEPT[folded]
    if foreign or ((host.paths or host.methods) and matches(folded, OVERRIDES)) then
      ngx.req.clear_header(name)
    end
  end
  for name, value in pairs(host.set) do
    ngx.req.clear_header((name:gsub("_", "-")))
    ngx.req.set_header(name, value)
  end
end

local function check_target(host, method, path)
  local key = ngx.var.key
  local bad = host.paths and ambiguous(path, host.default)
  if bad then
    return refuse(string.format('a path with "%s" could be read as another one', printable(bad, 9)))
  end
  if host.methods and not host.methods[method] then
    return refuse(string.format("%s is not among the methods for %s in the bottle's manifest", method, key))
  end
  if not host.paths or listed(host.paths, method, path) then return end
  local request = printable(method .. " " .. path, 200)
  if key == API then
    local how = string.format('to allow it: "api: {paths: [%s]}" in the bottle\'s manifest', request)
    if ngx.var.note == "" then ngx.var.note = "unlisted" end
    return refuse(request .. " is not what Claude Code needs of the API; " .. how)
  end
  local why = host.default and "what Claude Code needs" or "among the paths in the bottle's manifest"
  return refuse(string.format("%s is not %s of %s", request, why, key))
end

-- A request of POST messages, however a server might spell it, that is about to leave.
local function count(method, path)
  if method ~= "POST" or not match(lower(path), "^/v1/messages/?$") then return end
  if settings.requests and messages >= settings.requests then
    local limit = string.format('"limits: {requests: %d}" in the bottle\'s manifest', settings.requests)
    return refuse("the session has made all its messages, which are limited by " .. limit)
  end
  messages = messages + 1
  ngx.var.note = "message"
end

-- Of every host that gets a credential. None of them leaves, whatever it would be: a query that begins with "/" is the
-- path for which `right` is judged.
local SELF_TESTS = { ["/.claude-bottle/self-test/right"] = "@self-test", ["/.claude-bottle/self-test/wrong"] = "@out" }

function M.access()
  local key, name = ngx.var.key, ngx.var.name
  local host = settings.hosts[key]
  local method, target = match(ngx.var.request, "^(%S+) (/%S*) HTTP/1%.[01]$")
  if not method then refuse("a request must be HTTP/1.1, for a path", 400) end
  local asked = lower(ngx.var.http_host or "")
  local port = match(key, ":%d+$") or ":443"
  if lower(ngx.var.ssl_server_name or "") ~= name or (asked ~= name and asked ~= name .. port) then
    return refuse(FAILURES[421], 421)
  end
  if ngx.var.http_upgrade then
    return refuse("a connection cannot be upgraded through the credential proxy")
  end
  local path = match(target, "^[^?]*")
  local test = next(host.set) and SELF_TESTS[path]
  local judged = path
  if test then
    ngx.var.note = "self-test"
    judged = match(target, "%?(/.*)$")
  end
  if judged then check_target(host, method, judged) end
  if key == API and not settings.server_side_fetch then
    local betas = ngx.req.get_headers(0)["anthropic-beta"] or ""
    betas = type(betas) == "table" and table.concat(betas, ",") or betas
    for beta in lower(betas):gmatch("[^,%s]+") do
      if matches(beta, BETAS) then
        return refuse('the beta "' .. printable(beta, 60) .. '" would have the API run or fetch something; ' .. FETCH)
      end
    end
  end
  if key == API and find(lower(path), "^/v1/messages") then
    hold(method)
    count(method, path)
  end
  -- A server that ignores this body would read it as its next request, which nobody has judged or signed. Only what is
  -- posted to the API is surely read.
  local body = ngx.var.http_transfer_encoding or (tonumber(ngx.var.http_content_length) or 0) > 0
  if body and not (key == API and method == "POST") then
    ngx.var.last = "close"
    ngx.var.upstream = ngx.var.upstream .. "-once" -- nginx would not send such a request a second time
  end
  sign(host)
  if test then ngx.var.upstream = "self-test" end -- which is trusted by its own location alone
  ngx.exec(test or "@out")
end

local KINDS = { [413] = "request_too_large", [529] = "overloaded_error" }

-- The answer for everything that is refused, and for what fails.
function M.refused()
  local status = ngx.status
  if ngx.var.verdict == "" then
    ngx.var.verdict = status >= 500 and "failed" or "blocked"
    ngx.var.reason = FAILURES[status] or (status >= 500 and "the request failed" or "the request is malformed")
  end
  local text = "claude-bottle: " .. ngx.var.reason
  if ngx.var.key == API then
    ngx.header.content_type = "application/json"
    local kind = KINDS[status] or (status >= 500 and "api_error" or "invalid_request_error")
    text = cjson.encode({ type = "error", error = { type = kind, message = text } })
  else
    ngx.header.content_type = "text/plain"
    text = text .. "\n"
  end
  ngx.header.content_length = #text
  ngx.print(text)
end

function M.log()
  held = held - (tonumber(ngx.var.held) or 0)
  -- A connection that closes without a request has a last line of none.
  if ngx.var.note == "self-test" or tonumber(ngx.var.request_length) == 0 then return end
  local method, path = match(ngx.var.request or "", "^(%S+) ([^?%s]*)")
  logged = logged + 1
  local line = cjson.encode({
    event = "request",
    request_id = "req-" .. logged, -- some engines repeat lines
    time = ngx.utctime():gsub(" ", "T") .. "Z",
    verdict = ngx.var.verdict == "" and "allowed" or ngx.var.verdict,
    host = ngx.var.key,
    method = printable(method or "-", 32),
    path = printable(path or "-", 500),
    status = ngx.status,
    sent = tonumber(ngx.var.request_length),
    received = tonumber(ngx.var.bytes_sent),
    reason = ngx.var.reason ~= "" and ngx.var.reason or nil,
    messages = ngx.var.note == "message" or nil,
    unlisted = ngx.var.note == "unlisted" or nil,
  })
  io.stdout:write(line .. "\n")
end

-- The self-test's own host: with which headers a request has arrived, in a form that only the launcher can compare; what
-- the kernel says of every process here; and which limits are in force, in the files of either version of cgroups. Host
-- is the signed host, so no digest of another host's request, which the agent may have written whole, is ever the same.
-- The last field of loadavg is the highest process number that was given so far.
function M.self_test()
  local lines = {}
  for name, value in pairs(ngx.req.get_headers(0)) do
    lines[#lines + 1] = name .. "=" .. (type(value) == "table" and table.concat(value, ", ") or value)
  end
  table.sort(lines)
  local text = table.concat(lines, "\n")
  local key = settings.digest_key:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)
  local digest = ngx.hmac_sha1(key, text):gsub(".", function(char) return string.format("%02x", byte(char)) end)
  local processes = {}
  for number = 1, tonumber(match(read("/proc/loadavg"), "(%d+)%s*$")) do
    local there, status = pcall(read, "/proc/" .. number .. "/status")
    if there then
      local facts = {}
      for name, value in status:gmatch("(%w+):\t([^\n]*)") do
        facts[name] = match("Name Uid Gid NoNewPrivs Seccomp CapInh CapPrm CapEff CapBnd CapAmb", name) and value or nil
      end
      facts.Uid = cjson.decode("[" .. facts.Uid:gsub("\t", ",") .. "]")
      processes[tostring(number)] = facts
    end
  end
  local limits = {}
  for file in LIMITS:gmatch("%S+") do
    local there, value = pcall(read, "/sys/fs/cgroup/" .. file)
    if there then limits[match(file, "[^/]+$")] = value end
  end
  local mounts = read("/proc/self/mountinfo")
  text = cjson.encode({ digest = digest, processes = processes, limits = limits, mounts = mounts })
  ngx.header.content_type = "application/json"
  ngx.header.content_length = #text
  ngx.print(text)
end

return M
