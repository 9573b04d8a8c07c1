-- The tables of the bus, in the order in which a message meets them.
--
-- Applied by `esb migrate` (which then applies the functions in esb_workers/store/functions/). Runs on
-- PostgreSQL 14 to 18. Tables are not a public interface: callers use the REST API.
--
-- Three rules shape everything here.
--   1. All that is unfinished is a narrow row of `job`; all that is finished is insert-only history. A claim
--      therefore stays as fast with a year of history behind it as on an empty database, and history never
--      needs vacuuming.
--   2. History is partitioned by its UUIDv7 id, whose first 48 bits are the time in milliseconds: a look-up by
--      id prunes to one partition, children lie beside their parent, and retention is DROP TABLE.
--   3. Hot tables have no foreign keys: an open insert would share-lock the parent row and make
--      SKIP LOCKED pass it by.

-- Which schema this is. `min_code` is the oldest code that may work with it: code stops only if it is older
-- than that, or if `version` is older than what the code needs, so that old and new code can run side by side
-- during a rolling upgrade.
create table schema_version (
  version    int primary key,
  min_code   int not null,
  applied_at timestamptz not null default now()
);

-- How often the registrations of a topic have changed. A change bumps its row in its own transaction. Claims read
-- sum(n), and accepts the topics that a message was decided by, so that a cache in any process is refreshed before it
-- can act on what is no longer true: a change answered with 2xx governs every message accepted after that answer.
create table revision (
  topic text primary key constraint revision_topic check (topic in ('clients', 'services', 'routes', 'workflows', 'ingress', 'message_types', 'lookup_tables')),
  n     bigint not null default 0
) with (fillfactor = 50);
insert into revision (topic) values ('clients'), ('services'), ('routes'), ('workflows'), ('ingress'), ('message_types'), ('lookup_tables');

-- === Service registry ===================================================================================

-- One row per instance: several instances of one service share a name. Written by people only; what probes
-- and traffic find out stands in service_state.
create table service (
  id              uuid primary key,
  name            text not null,
  version         text not null,
  endpoint        text not null,
  health_check    jsonb,                              -- null: never probed
  weight          int not null default 1,
  tags            text[] not null default '{}',
  metadata        jsonb not null default '{}',
  delivery        jsonb not null default '{}',        -- path, method, timeout, headers, format, limits, retryPolicy
  status          text not null default 'active'
    constraint service_status check (status in (
      'active',        -- takes deliveries; -> maintenance, inactive
      'maintenance',   -- its deliveries are held, in order; -> active, inactive
      'inactive')),    -- out of discovery; a 410 from the instance leads here too; -> active, maintenance
  secret          text,                               -- signing secret, encrypted
  old_secret      text,                               -- the one before, also signs until old_secret_until
  old_secret_until timestamptz,
  password        text,                               -- of a broker's endpoint, encrypted; the endpoint is without it
  etag            int not null default 1,             -- version of what a caller can write
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  constraint service_instance unique (name, version, endpoint)
);

create table service_state (
  service_id        uuid primary key references service on delete cascade,
  health            text not null default 'unknown'
    constraint service_state_health check (health in ('unknown', 'healthy', 'degraded', 'unhealthy')),
  health_changed_at timestamptz,
  last_check        jsonb,
  successes         int not null default 0,           -- probes in a row that went well
  failures          int not null default 0,           -- probes in a row that failed
  heartbeat_at      timestamptz,
  circuit           text not null default 'closed'
    constraint service_state_circuit check (circuit in (
      'closed',        -- -> open after failures in a row, or too high a rate of them
      'open',          -- -> half_open when circuit_until has passed and one delivery has won the probe
      'half_open')),   -- -> closed if the probe goes well, -> open (for twice as long) if not
  circuit_until     timestamptz not null default '-infinity',
  circuit_opens     int not null default 0,           -- openings since it was last closed: doubles the pause
  circuit_epoch     bigint not null default 0,        -- compare-and-set: each transition adds one
  probe_until       timestamptz not null default '-infinity',  -- the half-open probe's lease
  circuit_changed_at timestamptz
) with (fillfactor = 50);

-- What processes report of attempts at instances that are in trouble: whichever worker saw a failure, it counts. Each
-- report is a row of its own, so nobody waits for anybody; while an instance is well, nothing is written at all.
create table circuit_tally (
  service_id uuid not null,
  at         timestamptz not null default clock_timestamp(),
  ok         int not null,                            -- attempts for which the instance is not to blame
  failed     int not null,
  tail       int not null                             -- of the failed, those after the last ok one
);
create index circuit_tally_newest on circuit_tally (service_id, at desc);   -- what a circuit is judged by

-- Results of probes and heartbeats; `health` is the state after it, so changes of state can be read off.
create table health_check (
  id          uuid not null,                          -- UUIDv7 of the check
  service_id  uuid not null,
  at          timestamptz not null default now(),
  ok          boolean not null,
  latency_ms  int,
  status_code int,
  error       text,
  health      text not null,
  changed     boolean not null default false,
  primary key (id)
) partition by range (id);
create index health_check_service on health_check (service_id, id);   -- GET /services/{id}/health

-- Keys that may do one thing for one service: send its heartbeat, or pull its deliveries.
create table service_key (
  id         text primary key,                        -- public part of the key
  service_id uuid not null references service on delete cascade,
  hash       bytea not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  scope      text not null default 'heartbeat' constraint service_key_scope check (scope in ('heartbeat', 'pull'))
);

-- === Client registry ====================================================================================

create table client (
  id                    uuid primary key,
  name                  text not null,
  allowed_services      text[] not null default '{}',
  allowed_message_types text[] not null default '{#}',
  rate_limits           jsonb not null default '{}',
  max_payload_bytes     int,
  expires_at            timestamptz,
  status                text not null default 'active' constraint client_status check (status in ('active', 'suspended')),
  metadata              jsonb not null default '{}',
  etag                  int not null default 1,
  created_at            timestamptz not null default now(),
  updated_at            timestamptz not null default now()
);
create unique index client_name on client (lower(name));

-- Only the public part and the hash of a key are stored; two may be valid at once while one is rotated out.
create table client_key (
  id         text primary key,
  client_id  uuid not null references client on delete cascade,
  hash       bytea not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz
);
create index client_key_client on client_key (client_id);

-- Counters of the quota windows where Redis does not hold them.
create table quota (
  client_id uuid not null,
  seconds   int not null,                             -- length of the window: 1, 60, 3600, 86400
  starts_at timestamptz not null,
  used      int not null,
  primary key (client_id, seconds, starts_at)
) with (fillfactor = 50);

-- Requests refused per client and hour; accepted and delivered are counted from history.
create table client_usage (
  client_id uuid not null,
  hour      timestamptz not null,
  rejected  bigint not null default 0,
  primary key (client_id, hour)
) with (fillfactor = 50);

-- === Routes =============================================================================================

-- A route as it was written. A deleted one stays, marked, for the deliveries it made: they keep its policies.
create table route (
  id         uuid primary key,
  name       text not null,
  priority   int not null default 0,
  enabled    boolean not null default true,
  body       jsonb not null,
  etag       int not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  -- The revision of `routes` that this version came with: whoever knows all up to a revision reads only what is newer.
  rev        bigint not null default 0
);
create unique index route_name on route (lower(name)) where deleted_at is null;
-- What changed since a revision.
create index route_rev on route (rev);

-- === Catalogue ==========================================================================================

-- A message type, and how strictly what is sent of it is held to its schema.
create table message_type (
  id             uuid primary key,
  name           text not null,                       -- the messageType
  mode           text not null default 'warn'
    constraint message_type_mode check (mode in (
      'off',           -- its schema is kept, and asked by nobody
      'warn',          -- what does not fit is accepted, and message_warning says so
      'enforce')),     -- what does not fit is refused
  compatibility  text not null default 'backward'
    constraint message_type_compatibility check (compatibility in ('backward', 'forward', 'full', 'none')),
  description    text,
  latest         int not null default 1,              -- its newest version
  active_version int,                                 -- the one that counts; null: the newest
  metadata       jsonb not null default '{}',
  etag           int not null default 1,
  created_at     timestamptz not null default now(),
  updated_at     timestamptz not null default now()
);
create unique index message_type_name on message_type (name);

-- Versions of a type's JSON Schema, numbered from 1. Never changed.
create table message_type_version (
  type_id     uuid not null references message_type on delete cascade,
  version     int not null,
  schema      text not null,                          -- JSON text
  description text,
  created_by  text not null,
  created_at  timestamptz not null default now(),
  primary key (type_id, version)
);

-- What `lookup(table, key)` finds in expressions of routes: key -> any JSON. Written by people, kept in memory by
-- whoever routes for as long as the revision of `lookup_tables` stays.
create table lookup_table (
  id          uuid primary key,
  name        text not null,
  description text,
  entries     jsonb not null,
  etag        int not null default 1,
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now()
);
create unique index lookup_table_name on lookup_table (lower(name));

-- === Ingress ============================================================================================

-- A named inbound webhook: how its senders prove themselves, and what message is made of a request.
create table ingress (
  id         uuid primary key,
  name       text not null,                           -- the last part of POST /ingress/{name}
  enabled    boolean not null default true,
  body       jsonb not null,                          -- verification (without secrets), mapping, challenge, limits
  secrets    jsonb not null default '[]',             -- [{"sealed": encrypted, "until": unix seconds or null}], newest first
  challenge_token text,                               -- what a sender's GET must bear, encrypted
  etag       int not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create unique index ingress_name on ingress (lower(name));

-- Requests that an ingress refused: the newest thousand of each, without bodies, secrets or signatures.
create table ingress_refusal (
  id           uuid primary key,                      -- UUIDv7 of the request
  ingress_id   uuid not null references ingress on delete cascade,
  at           timestamptz not null,
  status       smallint not null,                     -- as answered
  code         text not null,
  reason       text not null,
  method       text not null,
  remote       text,                                  -- the address it came from
  content_type text,
  bytes        int,
  headers      jsonb not null                         -- values of harmless headers; of all others the name alone
);
create index ingress_refusal_newest on ingress_refusal (ingress_id, id);   -- GET …/refusals, and its trimming

-- === Messages ===========================================================================================

-- The envelope and the payload as accepted. Never updated, but for redaction. Its status is derived at read:
--   a job of the routing pool with its id   -> accepted (scheduled, if its time has not come)
--   any job with its message_id             -> routed
--   a row of message_end                    -> unroutable | expired | cancelled | failed
--   else from its deliveries                -> delivered | partially_delivered | failed | expired | cancelled
create table message (
  id             uuid not null,
  client_id      uuid,                                -- null: the operator
  external_id    text,                                -- the caller's messageId, or the CloudEvents id
  source         text not null,
  type           text not null,
  correlation_id text not null,
  ordering_key   text,
  priority       smallint not null default 5,
  deliver_at     timestamptz,
  expires_at     timestamptz,
  reply_to       text,
  traceparent    text,
  headers        text not null default '{}',          -- JSON text: names are kept as sent, in order
  payload        text,                                -- JSON text; null once redacted
  replay_of      uuid,
  created_at     timestamptz not null default now(),
  redacted_at    timestamptz,
  primary key (id)
) partition by range (id);
create index message_correlation on message (correlation_id);          -- logs by correlation id
create index message_client on message (client_id, id) where client_id is not null;   -- a client reads its own
create index message_external on message (external_id) where external_id is not null; -- GET by the caller's id

-- A message that ended without a delivery, and why.
create table message_end (
  message_id uuid not null,
  status     text not null constraint message_end_status check (status in ('unroutable', 'expired', 'cancelled', 'failed')),
  reason     text,
  at         timestamptz not null default now(),
  primary key (message_id)
) partition by range (message_id);
-- Messages that no route took: counted, and replayed once one does.
create index message_end_unroutable on message_end (message_id) where status = 'unroutable';

-- A message that was accepted although it does not fit its type's schema, and where it does not.
create table message_warning (
  message_id uuid not null,
  type       text not null,
  version    int not null,                            -- of the schema
  faults     jsonb not null,                          -- [{"path", "message"}]; they may quote the payload
  at         timestamptz not null default now(),
  primary key (message_id)
) partition by range (message_id);

-- What a transformation made of a message for one delivery, once, at routing: every attempt sends the same.
create table form (
  delivery_id uuid not null,
  payload     text not null,
  headers     text not null,
  primary key (delivery_id)
) partition by range (delivery_id);

-- Answers kept for repeats. A scope is `{client}:{path}` for Idempotency-Key, `{client}:message` for messageId,
-- `{client}:event:{source}` for CloudEvents. Unpartitioned, because uniqueness must not end at a partition.
create table idempotency (
  scope      text not null,
  key        text not null,
  hash       bytea not null,                          -- of what was asked: same key, other question -> 422 or 409
  resource_id uuid,                                   -- the message accepted under a messageId
  status     smallint,                                -- HTTP status of the answer; null while it is being made
  answer     text,
  expires_at timestamptz not null,
  primary key (scope, key)
) with (fillfactor = 80);
create index idempotency_expiry on idempotency (expires_at);            -- upkeep deletes in chunks

-- === Listeners ==========================================================================================

-- A queue of another broker that is consumed into the bus. Accepting reads this row under a lock, so that nothing is
-- accepted by what it said before a change that has been answered.
create table listener (
  id         uuid primary key,
  name       text not null,
  url        text not null,                           -- of the queue, without the password
  password   text,                                    -- encrypted
  enabled    boolean not null default true,
  processes  int not null default 1,                  -- consumers at once: a job of pool 5 for each
  prefetch   int not null default 50,
  mapping    jsonb not null default '{}',
  etag       int not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create unique index listener_name on listener (lower(name));

-- What became of its queue. Written with each batch.
create table listener_state (
  listener_id     uuid primary key references listener on delete cascade,
  accepted        bigint not null default 0,
  duplicates      bigint not null default 0,
  parked          bigint not null default 0,
  last_message_at timestamptz,
  connected_at    timestamptz,
  error           text,                               -- why it could not be consumed, the last time
  error_at        timestamptz
) with (fillfactor = 50);

-- What came and could not become a message: kept for a person to replay or discard, so that it blocks no queue.
create table parked_message (
  id          uuid primary key,
  listener_id uuid not null references listener on delete cascade,
  at          timestamptz not null default now(),
  reason      text not null,
  body        bytea not null,
  headers     text not null,                          -- JSON text, as properties
  properties  text not null
);
create index parked_message_listener on parked_message (listener_id, id);   -- GET /routing/listeners/{id}/parked

-- === Work ===============================================================================================

-- One row per life of a worker process. Its heartbeat is the lease of everything it holds.
create table worker (
  id         bigint generated always as identity primary key,
  pool       smallint not null,                       -- 1 routing, 2 delivery, 3 orchestration, 4 health, 5 ingress, 0 scheduler, 100… step_queue
  host       text,
  pid        int,
  version    text,
  started_at timestamptz not null default now(),
  beat_until timestamptz not null default now() + interval '15 s',
  dead_at    timestamptz                              -- stopped, or declared dead: it can claim nothing any more
) with (fillfactor = 50);
create index worker_alive on worker (pool) where dead_at is null;

-- One per pool and destination (delivery), client (routing) or workflow (orchestration): what fairness, order,
-- limits and holding are about. A closed gate holds a whole lane by one write, however many rows wait in it.
create table lane (
  id              int generated always as identity primary key,
  pool            smallint not null,
  name            text not null,
  hard            boolean not null default false,     -- has a declared limit: only these are locked while claiming
  max_concurrency int,
  rate            float8,                             -- per second
  burst           int not null default 1,
  catching_up_since timestamptz,                      -- the rate is that of catching up, until what was held then is gone
  gate            text,                               -- why it is closed: maintenance | no_instance | circuit_open | pull
  gate_until      timestamptz not null default '-infinity',   -- open when past; written by people and the circuit only
  tat             timestamptz not null default '-infinity',   -- GCRA's theoretical arrival time; of the claim, or of a workflow's starts
  next_at         timestamptz not null default '-infinity',   -- not to be visited before; written by the claim only
  constraint lane_name unique (pool, name)
) with (fillfactor = 50);

-- Calls under way at services with declared limits, made outside of the services' lanes: by steps of runs, and by
-- deliveries that choose their destination late. Each counts as one in flight in the lane.
create table permit (
  id      bigint generated always as identity primary key,
  lane_id int not null,
  until   timestamptz not null                        -- its holder is taken for dead then
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index permit_lane on permit (lane_id);         -- how many are in flight

-- Everything that is not finished. Finished means deleted.
create table job (
  id           uuid primary key,                      -- = message | delivery | strand | service (probe) | consumer | schedule
  pool         smallint not null,
  lane_id      int not null,
  state        "char" not null default 'r' constraint job_state check (state in (
                 's',    -- scheduled: waits for run_at                  -> r
                 'q',    -- queued behind another row of its key         -> r
                 'r',    -- ready                                        -> f
                 'f',    -- in flight, held by worker_id (0: pulled)     -> (deleted) s r p b
                 'p',    -- parked: a strand that waits for a wake-up    -> r; a delivery in a group -> r q (deleted)
                 'h',    -- held: a start over its workflow's limit      -> r
                 'b')),  -- blocked: needs a decision                    -> r (deleted)
  run_at       timestamptz not null default now(),    -- fresh rows: shifted back by 30 s a priority point
  seq          bigint generated always as identity,   -- the order of acceptance; never a clock
  okey         text,                                  -- ordering key
  attempt      int not null default 0,                -- the fence: only ever +1, never reset
  tries        smallint not null default 0,           -- the retry budget used; a retry by hand resets this one
  losses       smallint not null default 0,           -- leases lost; at five it is taken for poison
  v            smallint not null default 1,           -- row format; a worker claims v <= what it knows
  worker_id    bigint,
  started_at   timestamptz,
  lease_until  timestamptz,                           -- hard deadline of this attempt; unindexed on purpose
  message_id   uuid,
  route_id     uuid,
  created_at   timestamptz not null default now(),
  expires_at   timestamptz,
  execution_id uuid,
  parent_job   uuid,
  parent_path  text,
  inbox        int not null default 0,                -- mailbox: whoever wants a strand's attention adds one
  control      "char",                                -- wanted of it: c stop, p pause, u undo (roots), d end as dead, k park
  cursor       jsonb
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
alter table job alter column cursor set statistics 0;   -- as that of history: see esb_partitions
create index job_ready on job (pool, lane_id, run_at) where state = 'r';      -- the claim
create index job_sched on job (pool, run_at) where state = 's';               -- timers that come due
-- Concurrency limits, lost leases. With the worker, which a claim sets: where an update leaves a key as it was, PostgreSQL
-- looks through full pages for old versions of the row, which here took a tenth of each claim and found what goes anyway.
create index job_flight on job (lane_id, worker_id) where state = 'f';
create index job_queued on job (lane_id, okey, seq) where state = 'q';        -- the next head of a key
-- At most one active row per key: the database itself holds the order.
create unique index job_head on job (lane_id, okey) where okey is not null and state <> 'q';
-- Heads of keys that do not get through: GET /routing/blocked-keys, few however many rows wait behind them.
create index job_stuck on job (id) where okey is not null and state <> 'q' and (state = 'b' or tries > 0 or losses > 0);
-- What upkeep looks for every second, few however many rows wait: those set aside or blocked, and held starts.
create index job_aside on job (state, pool) where state in ('b', 'h');
create index job_message on job (message_id) where message_id is not null;    -- status of a message
create index job_execution on job (execution_id) where execution_id is not null;
create index job_gathered on job (parent_job) where parent_job is not null and pool = 2;   -- what a group has gathered
create index job_expiry on job (expires_at) where expires_at is not null;     -- messages that go stale

-- === Deliveries =========================================================================================

-- A delivery that has ended. (An open one exists only as a job.) Taken out again only by a retry or replay.
create table delivery (
  id          uuid not null,
  message_id  uuid not null,
  route_id    uuid,
  lane_id     int not null,
  service_id  uuid,                                   -- the instance of the last attempt
  status      text not null
    constraint delivery_status check (status in ('delivered', 'dead', 'expired', 'cancelled', 'forbidden',
      'collected')),                                  -- part of the message named in cursor.into, whose fate is its own
  attempts    int not null,                           -- the fence it ended with
  class       text,                                   -- error class of a dead one
  cursor      jsonb,                                  -- which destination of the route it was
  last        jsonb,                                  -- the last attempt
  seq         bigint,                                 -- place in the order of its key
  okey        text,
  created_at  timestamptz not null,
  finished_at timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create index delivery_message on delivery (message_id);                 -- a message with its deliveries
create index delivery_in_vain on delivery (message_id) where status <> 'delivered';  -- logs by a rare status

-- Attempts before the last one. The claim is the durable record that an attempt began; each ends here, or in
-- delivery.last, with exactly one outcome.
create table attempt (
  delivery_id uuid not null,
  number      int not null,
  started_at  timestamptz,
  finished_at timestamptz default now(),
  worker_id   bigint,
  outcome     text not null constraint attempt_outcome check (outcome in ('ok', 'failed', 'unknown', 'superseded')),
  detail      jsonb,
  primary key (delivery_id, number)
) partition by range (delivery_id);

-- What waits for a person's decision: an index over the dead among the deliveries.
create table dead_letter (
  delivery_id uuid primary key,
  message_id  uuid not null,
  lane_id     int not null,
  route_id    uuid,
  client_id   uuid,
  class       text,
  at          timestamptz not null default now(),
  offered     boolean not null default false          -- looked at for its route's deadLetter
);
create index dead_letter_fresh on dead_letter (at) where not offered;           -- those to be looked at
create index dead_letter_at on dead_letter (at desc, delivery_id);
create index dead_letter_lane on dead_letter (lane_id, at);

-- Replays of dead letters: items are sent at the rate asked for, by upkeep.
create table replay (
  id         uuid primary key,
  filter     jsonb not null,
  rate       float8,                                  -- per second; null: as fast as possible
  status     text not null default 'running' constraint replay_status check (status in ('running', 'completed', 'cancelled')),
  matched    int not null,
  next_at    timestamptz not null default now(),
  created_at timestamptz not null default now(),
  finished_at timestamptz
);
create table replay_item (
  replay_id   uuid not null references replay on delete cascade,
  delivery_id uuid not null,
  sent_at     timestamptz,
  primary key (replay_id, delivery_id)
);
create index replay_item_waiting on replay_item (replay_id) where sent_at is null;
create index replay_item_delivery on replay_item (delivery_id);         -- the timeline of a message names its replays

-- === Orchestration ======================================================================================

-- JSON that no statement looks into is text: key order and every escape stay as they came.

-- A definition, immutable: a change is a new version, so an execution needs no copy of it. A deleted one stays,
-- marked, for its executions.
create table workflow (
  id          uuid primary key,
  name        text not null,
  version     text not null,                          -- semver; which is highest is decided in code
  description text,
  definition  text not null,
  lane_id     int not null,                           -- pool 3, named like the workflow: versions share it
  created_at  timestamptz not null default now(),
  deleted_at  timestamptz
);
create unique index workflow_version on workflow (name, version) where deleted_at is null;

-- Queues of plug-in steps. A strand that comes to a step of one is a job of its pool until the step is done, so that
-- only a worker that has the step's code claims it.
create sequence step_pool minvalue 100 maxvalue 32767;
create table step_queue (
  name text primary key,
  pool smallint not null unique default nextval('step_pool')
);
-- The types that workers of queues have announced: what definitions may name although their code is elsewhere.
create table step_type (
  name    text primary key,
  queue   text not null references step_queue,
  schema  text not null,                              -- JSON Schema of its `config`
  seen_at timestamptz not null default now()
);

-- A run. Its id is that of its root strand. What an open one is doing (pending, running, waiting) is not written
-- here but read from its jobs: a step must not cost a second update.
create table execution (
  id             uuid primary key,
  workflow_id    uuid not null,
  client_id      uuid,                                -- null: the operator
  status         text not null default 'open'
    constraint execution_status check (status in (
      'open',          -- -> paused, and every final state
      'paused',        -- by hand; -> open, cancelled
      -- Final; -> open, by a rerun.
      'completed', 'compensated', 'cancelled',
      'failed', 'timed_out')),                        -- also by a retry; failed also by skipping what failed
  engine_v       smallint not null default 1,
  business_key   text,
  correlation_id text not null,
  traceparent    text,
  priority       smallint not null default 5,
  parent_id      uuid,                                -- the run a step of which started this one
  parent_job     uuid,                                -- the strand that waits for it; nil: nobody waits any more
  input          text not null default '{}',          -- the initial context as sent
  context        text,                                -- these four are written at the end
  output         text,
  error          text,
  error_class    text,
  fence          int not null default 0,              -- the root strand's attempt at its end: a retry goes on above it
  reason         text,                                -- of a cancel
  undo           boolean not null default false,      -- cancelled with compensation: the root undoes, then ends
  skips          text[] not null default '{}',        -- steps (ids, paths) that it passes by when it comes to them
  deadline       timestamptz,                         -- moved by the length of each pause
  paused_at      timestamptz,
  limit_key      text,                                -- runs that share it are limited in number; with the workflow's name
  limit_n        int,                                 -- how many of them may be under way
  schedule_id    uuid,                                -- what started it by the calendar, and for which due time
  scheduled_for  timestamptz,
  delivery_id    uuid,                                -- the delivery of a message that started it
  created_at     timestamptz not null default now(),
  started_at     timestamptz,
  updated_at     timestamptz not null default now(),
  finished_at    timestamptz
) with (fillfactor = 70);
create index execution_open on execution (id) where status in ('open', 'paused');
create index execution_correlation on execution (correlation_id);
create index execution_workflow on execution (workflow_id, id);
create index execution_client on execution (client_id, id) where client_id is not null;
create index execution_business_key on execution (business_key) where business_key is not null;
create index execution_parent on execution (parent_id) where parent_id is not null;   -- cancel goes down
-- Runs that are waited for: those whose waiting strand is gone are cancelled.
create index execution_waited on execution (parent_job) where parent_job is not null and status in ('open', 'paused');

create index execution_limit on execution (limit_key, id) where limit_key is not null and status in ('open', 'paused');
-- One run for a due time, and one for a delivery, whatever dies in between.
create unique index execution_schedule on execution (schedule_id, scheduled_for) where schedule_id is not null;
create index execution_schedule_open on execution (schedule_id) where schedule_id is not null and status in ('open', 'paused');
create unique index execution_delivery on execution (delivery_id) where delivery_id is not null;

-- One open run per workflow and business key.
create table business_key (
  workflow     text not null,
  key          text not null,
  execution_id uuid not null,
  primary key (workflow, key)
);
create index business_key_execution on business_key (execution_id);

-- The journal of an execution, which is also its history. Insert-only. The nil strand holds what people did.
-- A sequence of its own: partitioned tables have identity columns only from PostgreSQL 17 on.
create sequence event_seq;
create table event (
  execution_id uuid not null,
  job_id       uuid not null,                         -- the strand
  n            int not null,                          -- number within the strand: a double is refused by the key
  seq          bigint not null default nextval('event_seq'),
  at           timestamptz not null default clock_timestamp(),
  type         text not null,
  path         text,                                  -- of the step
  visit        int,                                   -- the n that opened this visit of the step
  iteration    int,
  data         text,
  primary key (execution_id, job_id, n)
) partition by range (execution_id);
create index event_seq_index on event (execution_id, seq);

-- A strand's state every fifty events: recovery is the snapshot and the events after it, however long the history.
create table snapshot (
  job_id       uuid primary key,
  execution_id uuid not null,
  n            int not null,
  state        text not null
);
create index snapshot_execution on snapshot (execution_id);

-- A fork waiting for its branches: a counter, decremented in the transaction that ends a branch.
create table scope (
  job_id       uuid not null,
  path         text not null,
  execution_id uuid not null,
  kids         int not null,
  open         int not null,
  need         int not null,
  failed       int not null default 0,
  tolerated    int not null default 0,
  total        int,
  next_i       int not null default 0,
  closed       boolean not null default false,
  seed         text not null,                         -- what each child starts from
  primary key (job_id, path)
) with (fillfactor = 50);
create index scope_execution on scope (execution_id);

-- Callback tokens that were used, by their hash: each answers once.
create table callback (
  hash         bytea primary key,
  execution_id uuid not null,
  at           timestamptz not null default now()
);
create index callback_execution on callback (execution_id);             -- retention

create table signal (
  id           bigint generated always as identity primary key,
  execution_id uuid not null,
  name         text not null,
  payload      text,
  at           timestamptz not null default now(),
  taken_by     uuid,                                  -- the strand, and the visit of the step, that took it
  taken_for    int
);
create index signal_waiting on signal (execution_id, name, id);

-- An act on many runs at once: which ones is settled when it is asked for, and upkeep carries it out in chunks, by id.
create table bulk (
  id          uuid primary key,
  action      text not null constraint bulk_action check (action in ('cancel', 'pause', 'resume', 'retry')),
  reason      text,                                   -- of a cancel
  compensate  boolean not null default false,
  filter      jsonb not null,
  actor       text not null,
  status      text not null default 'running' constraint bulk_status check (status in ('running', 'completed', 'cancelled')),
  matched     int not null,
  created_at  timestamptz not null default now(),
  finished_at timestamptz
);
create table bulk_item (
  bulk_id      uuid not null references bulk on delete cascade,
  execution_id uuid not null,
  outcome      text,                                  -- ok, or what forbade it: the run had changed meanwhile
  primary key (bulk_id, execution_id)
);
create index bulk_item_waiting on bulk_item (bulk_id, execution_id) where outcome is null;

-- Starts runs by a calendar. Whoever finds one due locks it, starts its run and moves next_at on, in one transaction:
-- each due time is handled once, by any number of processes.
create table schedule (
  id             uuid primary key,
  name           text not null,
  workflow_id    uuid,                                -- this version; or
  workflow_name  text,                                -- the highest of this name, or this one
  version        text,
  cron           text not null,
  timezone       text not null default 'UTC',
  input          text not null default '{}',
  catch_up       text not null default 'none' constraint schedule_catch_up check (catch_up in ('none', 'last', 'all')),
  overlap        text not null default 'skip'
    constraint schedule_overlap check (overlap in ('skip', 'queue', 'allow', 'cancel_previous')),
  jitter         int not null default 0,              -- milliseconds
  start_at       timestamptz,
  end_at         timestamptz,
  enabled        boolean not null default true,
  next_at        timestamptz,                         -- the next due time; null: none comes
  queued         timestamptz[] not null default '{}', -- due times that wait for the run before them to end
  last_at        timestamptz,                         -- the last due time that was handled
  last_outcome   text,                                -- what became of it
  last_run       uuid,
  etag           int not null default 1,
  created_at     timestamptz not null default now(),
  updated_at     timestamptz not null default now()
) with (fillfactor = 70);
create unique index schedule_name on schedule (lower(name));
create index schedule_due on schedule (next_at) where enabled;

-- === Records ============================================================================================

-- Figures that only ever rise, for GET /metrics: processes add what they have counted with their heartbeats, the sweep
-- what it has taken back.
create table counter (
  name text not null,                                 -- claimed, recorded, superseded, swept, workers_lost
  pool smallint not null,
  n    bigint not null default 0,
  primary key (name, pool)
) with (fillfactor = 50);

-- Who changed which registration, and how.
create table audit (
  id          uuid primary key,
  at          timestamptz not null default now(),
  actor       text not null,                          -- `operator` or `client:{id}`
  action      text not null,
  resource    text not null,                          -- service, client, route, workflow, …
  resource_id text not null,
  name        text,
  detail      jsonb
);
create index audit_resource on audit (resource, resource_id, id);
