-- Health of the kinds of Mainspring for Argo CD; the same text for each of them.
-- Healthy: what is asked for is so. Progressing: it is being worked on. Degraded: it waits for a person.
local health = { status = "Progressing", message = "waiting for the operator" }
local status = obj.status
if obj.spec ~= nil and obj.spec.suspend == true then
  health.status = "Suspended"
  health.message = "spec.suspend is true"
  return health
end
if status == nil or status.conditions == nil then
  return health
end

local generation = obj.metadata.generation
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
-- A ModelOverride is healthy while it holds, and when it is over because its time was or a newer one came.
local active = found["Active"]
if active ~= nil then
  local over = active.reason == "Expired" or active.reason == "SupersededByNewer" or active.reason == "Done"
  health.message = active.message
  if active.status == "True" or over then
    health.status = "Healthy"
  elseif active.status == "False" then
    health.status = "Degraded"
  end
  return health
end
local ready = found["Ready"]
if ready == nil then
  return health
end
if ready.message ~= nil and ready.message ~= "" then
  health.message = ready.message
end
if status.observedGeneration ~= generation then
  return health
end
if ready.observedGeneration ~= nil and ready.observedGeneration ~= generation then
  return health
end

local function is_true(name)
  return found[name] ~= nil and found[name].status == "True"
end
if is_true("Stalled") then
  health.status = "Degraded"
elseif is_true("Reconciling") then
  health.status = "Progressing"
elseif ready.status == "True" then
  health.status = "Healthy"
elseif ready.status == "False" then
  health.status = "Degraded"
end
return health
