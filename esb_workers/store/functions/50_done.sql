-- What routing made of messages. p_own = [{id, attempt, status, reason}]: with a status, how a message ended without any
-- delivery. p_to = [{m, id, lane, route, okey, prio, cursor, status, class, detail, payload, headers}]: deliveries to make
-- of message m (with a status, forbidden or dead: made and ended at once; payload: the transformed form). The last four
-- are what deliveries say that do not say it themselves, as all do that one route sends to one destination: what is said
-- once is read once. Answers the rows that were still ours, with the keys to promote; the others were superseded.
-- `= any(array[…])`: what is to be an index scan for each row, in order of id, and never a hash join over the table.
-- Here and below what is to be jsonb is read as json and cast: a column of type jsonb costs json_to_recordset six times that.
drop function if exists esb_routed(bigint, json, json);   -- it took less
create or replace function esb_routed(p_worker bigint, p_own json, p_to json, p_lane int default null, p_route uuid default null,
  p_prio int default 5, p_cursor jsonb default null)
returns table (id uuid, lane_id int, okey text) language plpgsql volatile
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
begin
  return query
  with x as materialized (select * from json_to_recordset(p_own) as x(id uuid, attempt int, status text, reason text) order by x.id),
  own as materialized (
    delete from job j using x where j.id = any(array[x.id]) and j.attempt = x.attempt and j.worker_id = p_worker
    returning j.id, j.seq, j.lane_id, j.okey, j.expires_at, j.control, x.status, x.reason),
  made as materialized (
    select d.id, coalesce(d.lane, p_lane) as lane, coalesce(d.route, p_route) as route, d.okey, coalesce(d.prio, p_prio) as prio,
           coalesce(d.cursor::jsonb, p_cursor) as cursor, d.status, d.class, d.detail::jsonb as detail, d.payload, d.headers,
           d.ord, own.id message_id, own.seq, own.expires_at
      from rows from (json_to_recordset(p_to)
        as (m uuid, id uuid, lane int, route uuid, okey text, prio int, cursor json, status text, class text, detail json, payload text, headers text))
        with ordinality as d(m, id, lane, route, okey, prio, cursor, status, class, detail, payload, headers, ord) join own on own.id = d.m
     where own.control is distinct from 'c'),
  ins as (
    insert into job (id, pool, lane_id, route_id, okey, state, run_at, message_id, expires_at, cursor)
    select d.id, 2, d.lane, d.route, d.okey, case when d.okey is null then 'r' else 'q' end::"char",
           now() - make_interval(secs => 30 * d.prio), d.message_id, d.expires_at, d.cursor
      from made d where d.status is null order by d.seq, d.ord),
  ended as (
    insert into delivery (id, message_id, route_id, lane_id, status, attempts, class, cursor, last, created_at)
    select d.id, d.message_id, d.route, d.lane, d.status, 0, d.class, d.cursor, d.detail, now() from made d where d.status is not null),
  dead as (
    insert into dead_letter (delivery_id, message_id, lane_id, route_id, client_id, class)
    select d.id, d.message_id, d.lane, d.route, (select m.client_id from message m where m.id = d.message_id), d.class
      from made d where d.status = 'dead'),
  forms as (insert into form (delivery_id, payload, headers) select d.id, d.payload, d.headers from made d where d.payload is not null),
  ends as (
    insert into message_end (message_id, status, reason)
    select own.id, case when own.control = 'c' then 'cancelled' else own.status end, own.reason from own
     where own.control = 'c' or own.status is not null)
  select own.id, own.lane_id, own.okey from own
  union all select null, d.lane, d.okey from made d where d.okey is not null and d.status is null;
end $$;

-- What became of deliveries. r = [{id, attempt, o, delay_ms, class, detail, service, held, at}]; at: what the
-- cursor says from now on, where a delivery has a choice of destinations; o one of
--   ok dead expired cancelled   ended: the job becomes history
--   retry                       tried in vain, to be tried again after delay_ms
--   hold                        could not be tried (held: why); looked at again after delay_ms, costs no try
--   release                     was not started; ready again
--   block                       dead at the head of a key that is to stay blocked, until a person decides
-- Locks its own rows only, in order of id: a row that two deliveries share would deadlock.
create or replace function esb_done(p_worker bigint, r json)
returns table (id uuid, lane_id int, okey text) language plpgsql volatile
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
begin
  return query
  with x as materialized (
    select x.id, x.attempt, x.o, x.delay_ms, x.class, x.detail::jsonb as detail, x.service, x.held, x.at::jsonb as at
      from json_to_recordset(r) as x(id uuid, attempt int, o text, delay_ms bigint, class text, detail json, service uuid, held text, at json)
     order by x.id),
  own as materialized (
    select j.*, coalesce(j.cursor || x.at, j.cursor) at, x.delay_ms, x.detail, x.service, x.held,
           -- Cancelled, parked, or its service deleted while this attempt was under way: it is not tried again.
           case when x.o not in ('retry', 'hold', 'release', 'block') then x.o when j.control = 'c' then 'cancelled'
                when j.control in ('d', 'k') then 'dead' else x.o end o,
           x.o as asked,
           case when x.o not in ('retry', 'hold', 'release', 'block') then x.class when j.control = 'd' then 'service_deleted'
                when j.control = 'k' then coalesce(x.class, 'Parked') else x.class end class
      from x join job j on j.id = any(array[x.id]) where j.attempt = x.attempt and j.worker_id = p_worker order by j.id for update of j),
  del as (delete from job j where j.id = any(array(select own.id from own where own.o not in ('retry', 'block', 'release', 'hold')))),
  upd as (
    update job j set
        state = case own.o when 'retry' then 's' when 'hold' then 's' when 'block' then 'b' else 'r' end::"char",
        tries = j.tries + (own.o in ('retry', 'block'))::int, worker_id = null,
        cursor = case own.o when 'hold' then coalesce(own.at, '{}') || jsonb_build_object('held', own.held)
                            when 'block' then coalesce(own.at, '{}') - 'held' || jsonb_build_object('blocked', own.class)
                            else own.at - 'held' end,
        -- Not later than it expires: then upkeep ends it, instead of an attempt hours after.
        -- What was not started keeps its place in the line.
        run_at = least(case own.o when 'release' then j.run_at else now() + make_interval(secs => coalesce(own.delay_ms, 0) / 1000.0) end,
                       j.expires_at)
      from own where j.id = any(array[own.id]) and own.o in ('retry', 'block', 'release', 'hold')),
  hist as (
    insert into delivery (id, message_id, route_id, lane_id, service_id, status, attempts, class, cursor, last, seq, okey, created_at)
    select d.id, d.message_id, d.route_id, d.lane_id, d.service, case d.o when 'ok' then 'delivered' else d.o end, d.attempt, d.class,
           d.at - 'held', d.detail || jsonb_build_object('number', d.attempt, 'startedAt', d.started_at, 'finishedAt', now()),
           d.seq, d.okey, d.created_at
      from own d where d.o not in ('retry', 'block', 'release', 'hold')),
  att as (
    insert into attempt (delivery_id, number, started_at, worker_id, outcome, detail)
    select d.id, d.attempt, d.started_at, d.worker_id, case d.asked when 'ok' then 'ok' else 'failed' end, d.detail
      from own d where (d.asked in ('retry', 'block') or (d.losses > 0 and d.asked in ('ok', 'dead'))) and d.detail is not null
    on conflict (delivery_id, number) do update set outcome = excluded.outcome, detail = excluded.detail),
  dl as (
    insert into dead_letter (delivery_id, message_id, lane_id, route_id, client_id, class)
    select d.id, d.message_id, d.lane_id, d.route_id, (select m.client_id from message m where m.id = d.message_id), d.class
      from own d where d.o = 'dead')
  select own.id, own.lane_id, own.okey from own;                -- missing ids were superseded: drop their results
end $$;

-- The same for attempts that all went well, [{id, attempt, detail, service, at}]: whatever is wanted of the rows by now,
-- they end as delivered, so the statement that ends them is the one that locks them.
create or replace function esb_delivered(p_worker bigint, r json)
returns table (id uuid, lane_id int, okey text) language plpgsql volatile
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
begin
  return query
  with x as materialized (
    select x.id, x.attempt, x.detail::jsonb as detail, x.service, x.at::jsonb as at
      from json_to_recordset(r) as x(id uuid, attempt int, detail json, service uuid, at json) order by x.id),
  own as materialized (
    delete from job j using x where j.id = any(array[x.id]) and j.attempt = x.attempt and j.worker_id = p_worker
    returning j.id, j.message_id, j.route_id, j.lane_id, j.attempt, coalesce(j.cursor || x.at, j.cursor) - 'held' as cursor, j.seq, j.okey,
              j.created_at, j.started_at, j.losses, x.service, x.detail),
  hist as (
    insert into delivery (id, message_id, route_id, lane_id, service_id, status, attempts, cursor, last, seq, okey, created_at)
    select o.id, o.message_id, o.route_id, o.lane_id, o.service, 'delivered', o.attempt, o.cursor,
           o.detail || jsonb_build_object('number', o.attempt, 'startedAt', o.started_at, 'finishedAt', now()), o.seq, o.okey, o.created_at
      from own o),
  att as (
    insert into attempt (delivery_id, number, started_at, worker_id, outcome, detail)
    select o.id, o.attempt, o.started_at, p_worker, 'ok', o.detail from own o where o.losses > 0 and o.detail is not null
    on conflict (delivery_id, number) do update set outcome = excluded.outcome, detail = excluded.detail)
  select o.id, o.lane_id, o.okey from own o;
end $$;

-- Attempts that came back after their deliveries had been taken from their workers: what they found is kept, and
-- decides nothing. r = [{id, attempt, detail}].
create or replace function esb_superseded(r jsonb) returns void language sql volatile set enable_seqscan = off as $$
  update attempt a set outcome = 'superseded', detail = x.detail, finished_at = now()
    from jsonb_to_recordset(r) as x(id uuid, attempt int, detail jsonb)
   where a.delivery_id = x.id and a.number = x.attempt and a.outcome = 'unknown' and x.detail is not null
$$;

-- Ends the open deliveries of a lane as dead, those in flight as soon as they come back; in chunks, by id.
create or replace function esb_end_lane(p_lane int, p_class text, p_limit int) returns int language sql volatile as $$
  with own as materialized (
    select * from job where lane_id = p_lane and pool = 2 and control is distinct from 'd' order by id limit p_limit for update),
  flag as (update job set control = 'd' where state = 'f' and id = any(array(select id from own))),
  del as (delete from job where state <> 'f' and id = any(array(select id from own where state <> 'f'))),
  hist as (
    insert into delivery (id, message_id, route_id, lane_id, status, attempts, class, cursor, seq, okey, created_at)
    select id, message_id, route_id, lane_id, 'dead', attempt, p_class, cursor - 'held', seq, okey, created_at from own where state <> 'f'),
  dl as (
    insert into dead_letter (delivery_id, message_id, lane_id, route_id, client_id, class)
    select id, message_id, lane_id, route_id, (select m.client_id from message m where m.id = own.message_id), p_class from own where state <> 'f')
  select count(*)::int from own
$$;

-- Stops what of a message is not delivered yet; attempts in flight finish and are then not repeated. Answers
-- the keys to promote.
create or replace function esb_cancel_message(p_message uuid) returns table (id uuid, lane_id int, okey text) language sql volatile as $$
  with own as materialized (select * from job where message_id = p_message order by id for update),
  flag as (update job set control = 'c' where state = 'f' and id = any(array(select id from own))),
  del as (delete from job where state <> 'f' and id = any(array(select id from own where state <> 'f'))),
  hist as (
    insert into delivery (id, message_id, route_id, lane_id, status, attempts, cursor, seq, okey, created_at)
    select id, message_id, route_id, lane_id, 'cancelled', attempt, cursor - 'held', seq, okey, created_at from own where state <> 'f' and pool = 2),
  ends as (insert into message_end (message_id, status, reason) select id, 'cancelled', 'cancelled' from own where state <> 'f' and pool = 1)
  select own.id, own.lane_id, own.okey from own
$$;

-- Takes a delivery up again, now and with a fresh budget: an ended one becomes a job once more under its own id,
-- so that the receiver sees the same webhook-id; the fence goes on counting where it stood. Answers its lane and
-- key (to promote), or nothing if there is no such delivery or it is in flight.
create or replace function esb_retry(p_delivery uuid) returns table (lane_id int, okey text) language plpgsql volatile as $$
declare d delivery;
begin
  update job j set tries = 0, losses = 0, run_at = now(), state = case when j.state in ('s', 'b') then 'r' else j.state end::"char", cursor = coalesce(j.cursor, '{}') - 'held' - 'blocked' || jsonb_build_object('since', now())
   where j.id = p_delivery and j.pool = 2 and j.state <> 'f';
  if found then
    return query select j.lane_id, j.okey from job j where j.id = p_delivery;
    return;
  end if;
  delete from delivery v where v.id = p_delivery and v.status <> 'delivered' returning v.* into d;
  if d.id is null then return; end if;
  delete from dead_letter l where l.delivery_id = d.id;
  insert into attempt (delivery_id, number, started_at, finished_at, outcome, detail)
  select d.id, d.attempts, (d.last->>'startedAt')::timestamptz, (d.last->>'finishedAt')::timestamptz, 'failed', d.last
   where d.last is not null on conflict do nothing;
  insert into job (id, pool, lane_id, route_id, okey, state, seq, attempt, message_id, created_at, cursor) overriding system value
  values (d.id, 2, d.lane_id, d.route_id, d.okey, case when d.okey is null then 'r' else 'q' end::"char",
          coalesce(d.seq, nextval(pg_get_serial_sequence('job', 'seq'))), d.attempts, d.message_id, d.created_at,
          coalesce(d.cursor, '{}') || jsonb_build_object('since', now()));
  return query select d.lane_id, d.okey;
end $$;
