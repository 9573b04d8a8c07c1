-- Claims up to p_max ready rows of a pool for a worker: at most p_room a lane (p_room_n for those named in
-- p_room_lane), lanes in turn after p_after, declared limits held over all workers. The claim is the durable
-- record that attempt n began; it raises the fence. Why each statement is as it is: docs/explanation/core.md.
-- p_whole: with the message of each row, if it is there and no larger than a claim's answer may be (`whole`).
drop function if exists esb_claim;   -- what it answers has changed over time
create function esb_claim(p_pool smallint, p_worker bigint, p_v smallint, p_max int, p_room int,
  p_room_lane int[], p_room_n int[], p_after int, p_lease interval, p_lanes int default 32,
  p_whole boolean default false)
returns table (id uuid, lane_id int, attempt int, tries smallint, message_id uuid, route_id uuid, okey text, cursor jsonb,
               execution_id uuid, control "char", inbox int, created_at timestamptz, rev bigint, losses smallint,
               whole boolean, client_id uuid, external_id text, source text, type text, correlation_id text, ordering_key text,
               priority smallint, expires_at timestamptz, reply_to text, traceparent text, headers text, payload text,
               accepted_at timestamptz)
language plpgsql volatile
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
declare v_soft int[]; v_hard int[]; v_ids uuid[]; v_first uuid[];
begin
  select array(select j.id from job j where j.pool = p_pool and j.state = 'r' limit 2) into v_first
    from worker w where w.id = p_worker and w.dead_at is null;
  if not found then
    raise exception 'declared dead' using errcode = 'ES002';
  end if;
  if v_first = '{}' then return; end if;   -- as most looks find it, so nothing else is asked
  if cardinality(v_first) = 1 then   -- nor whose turn it is, when a single row has just come
    v_ids := array(
      select j.id from job j join lane l on l.id = j.lane_id
       where j.id = v_first[1] and j.state = 'r' and j.run_at <= now() and j.v <= p_v
         and not l.hard and l.gate_until <= now() and l.next_at <= now()
         and coalesce((select u.n from unnest(p_room_lane, p_room_n) u(l, n) where u.l = l.id), p_room) > 0
         for update of j skip locked);
  end if;
  if v_ids is null or v_ids = '{}' then   -- the long way: whose turn it is, and how much limits leave
  -- 1. Lanes that have ready rows, round robin after p_after: a loose index scan, lazy under the LIMIT.
  with recursive a(l) as (
    (select j.lane_id from job j where j.pool = p_pool and j.state = 'r' and j.lane_id > p_after order by j.lane_id limit 1)
    union all
    select (select j.lane_id from job j where j.pool = p_pool and j.state = 'r' and j.lane_id > a.l order by j.lane_id limit 1)
      from a where a.l is not null),
  b(l) as (
    (select j.lane_id from job j where j.pool = p_pool and j.state = 'r' order by j.lane_id limit 1)
    union all
    select (select j.lane_id from job j where j.pool = p_pool and j.state = 'r' and j.lane_id > b.l order by j.lane_id limit 1)
      from b where b.l is not null and b.l < p_after)
  select coalesce(array_agg(x.id) filter (where not x.hard), '{}'), coalesce(array_agg(x.id) filter (where x.hard), '{}')
    into v_soft, v_hard
    from (select l.id, l.hard
            from (select a.l from a where a.l is not null union all select b.l from b where b.l <= p_after) w,
                 lateral (select * from lane l where l.id = w.l) l
           where l.gate_until <= now() and l.next_at <= now()
             and coalesce((select u.n from unnest(p_room_lane, p_room_n) u(l, n) where u.l = l.id), p_room) > 0
           limit p_lanes) x;
  if v_soft = '{}' and v_hard = '{}' then return; end if;
  -- 2. Lock only the lanes with a declared limit, and never wait. NO KEY: FOR UPDATE would pass by lanes that an
  --    open foreign-key insert share-locks.
  if v_hard <> '{}' then
    select coalesce(array_agg(x.id), '{}') into v_hard
      from (select l.id from lane l where l.id = any(v_hard) order by l.id for no key update skip locked) x;
  end if;
  -- 3. A new statement, so a new snapshot: it sees every claim that earlier holders of these locks committed.
  --    Counted in the locking statement itself, the lock is fresh but the count is old, and limits are broken.
  with room as materialized (
    select l.id lid, greatest(0, least(
        coalesce((select u.n from unnest(p_room_lane, p_room_n) u(l, n) where u.l = l.id), p_room),
        case when l.max_concurrency is not null
             then l.max_concurrency - (select count(*) from job f where f.lane_id = l.id and f.state = 'f')
                  - (select count(*) from permit p where p.lane_id = l.id and p.until > now()) end,
        case when l.rate is not null
             then floor(extract(epoch from clock_timestamp() - greatest(l.tat, clock_timestamp() - make_interval(secs => l.burst / l.rate))) * l.rate
                        + 0.001) end))::int n   -- the clock moves on while it is read twice
      from lane l where l.id = any(v_soft || v_hard) and l.gate_until <= now()
     -- In turn after p_after, again: by id alone, the first lanes would be served before the last ones every time.
     order by l.id <= p_after, l.id)
  select array_agg(p.id) into v_ids
    from (select p.id from room r cross join lateral (
            select j.id from job j
             where j.pool = p_pool and j.lane_id = r.lid and j.state = 'r' and j.run_at <= now() and j.v <= p_v
             order by j.run_at limit r.n for update skip locked) p limit p_max) p;
  if v_hard <> '{}' then   -- Pay for what was taken; a dry lane is not visited before its next token.
    update lane l
       set tat = greatest(l.tat, clock_timestamp() - make_interval(secs => l.burst / l.rate)) + make_interval(secs => t.n / l.rate),
           next_at = case when greatest(l.tat, clock_timestamp() - make_interval(secs => l.burst / l.rate)) + make_interval(secs => (t.n + 1) / l.rate) > clock_timestamp()
                          then greatest(l.tat, clock_timestamp() - make_interval(secs => l.burst / l.rate)) + make_interval(secs => (t.n + 1) / l.rate)
                          else '-infinity' end
      from (select h.x id, (select count(*) from job j where j.id = any(v_ids) and j.lane_id = h.x) n from unnest(v_hard) h(x)) t
     where l.id = t.id and l.rate is not null;
  end if;
  end if;   -- of the long way
  if v_ids is null then return; end if;
  -- =ANY(array), never a join: after a variable LIMIT the planner would hash-join and scan the whole table.
  if p_whole then
    return query
    with t as (
      update job j set state = 'f', attempt = j.attempt + 1, worker_id = p_worker, started_at = now(), lease_until = now() + p_lease
       where j.id = any(v_ids)
      returning j.id, j.lane_id, j.attempt, j.tries, j.message_id, j.route_id, j.okey, j.cursor, j.execution_id, j.control, j.inbox,
                j.created_at, j.losses)
    select t.id, t.lane_id, t.attempt, t.tries, t.message_id, t.route_id, t.okey, t.cursor, t.execution_id, t.control, t.inbox,
           t.created_at, (select sum(n) from revision)::bigint, t.losses, coalesce(octet_length(m.payload) + octet_length(m.headers) <= 8192, false), m.client_id,
           m.external_id, m.source, m.type, m.correlation_id, m.ordering_key, m.priority, m.expires_at, m.reply_to, m.traceparent,
           case when octet_length(m.payload) + octet_length(m.headers) <= 8192 then m.headers end,
           case when octet_length(m.payload) + octet_length(m.headers) <= 8192 then m.payload end, m.created_at
      from t left join message m on m.id = t.message_id;
    return;
  end if;
  return query
  update job j set state = 'f', attempt = j.attempt + 1, worker_id = p_worker, started_at = now(), lease_until = now() + p_lease
   where j.id = any(v_ids)
  returning j.id, j.lane_id, j.attempt, j.tries, j.message_id, j.route_id, j.okey, j.cursor, j.execution_id, j.control, j.inbox,
            j.created_at, (select sum(n) from revision)::bigint, j.losses, null::boolean, null::uuid, null::text, null::text, null::text,
            null::text, null::text, null::smallint, null::timestamptz, null::text, null::text, null::text, null::text, null::timestamptz;
end $$;

-- The soonest moment at which a sleeping engine of this pool has something to do; null if none is known.
create or replace function esb_wake(p_pool smallint) returns timestamptz language sql stable set enable_seqscan = off as $$
  select least(
    (select min(run_at) from job where pool = p_pool and state = 's'),
    case when p_pool = 3 then (select min(next_at) from schedule where enabled and next_at > now()) end,
    (select min(greatest(gate_until, next_at)) from lane
      where pool = p_pool and greatest(gate_until, next_at) > now() and gate_until < 'infinity'))
$$;
