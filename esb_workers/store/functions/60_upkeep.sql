-- Declares silent workers dead and takes back what they hold. The guard on the server's start: after a restart
-- of PostgreSQL every heartbeat is late, and none of them is dead; whoever lives beats again within p_grace.
create or replace function esb_sweep(p_limit int, p_grace interval) returns table (id uuid, pool smallint) language sql volatile set enable_seqscan = off as $$
  with dead as (
    update worker set dead_at = now()
     where dead_at is null and beat_until < now() and pg_postmaster_start_time() < now() - p_grace returning id, pool),
  lost as materialized (
    select j.id from job j
     where j.state = 'f' and (j.lease_until < now() or j.worker_id in (select id from worker where dead_at is not null)
                              or j.worker_id in (select id from dead))
     limit p_limit for update skip locked),
  upd as (
    update job j set state = case when j.losses >= 4 or (j.pool in (1, 2) and j.control is not null) then 'b' else 'r' end::"char",
                     losses = j.losses + 1, run_at = now()
     where j.id = any(array(select id from lost)) returning j.*),
  att as (
    insert into attempt (delivery_id, number, started_at, worker_id, outcome)
    select id, attempt, started_at, worker_id, 'unknown' from upd where pool = 2 on conflict do nothing),
  counted as (
    insert into counter (name, pool, n)
    select x.name, x.pool, x.n from (
      select 'workers_lost' as name, pool, count(*) as n from dead group by pool
      union all select 'swept', pool, count(*) from upd group by pool) x order by x.name, x.pool
    on conflict (name, pool) do update set n = counter.n + excluded.n)
  select id, pool from upd
$$;

-- Gives back what a living worker holds without knowing it, because the answer of its claim never reached it, or
-- without having an outcome to record, or what it will not start now. p_lost: it was begun, and nobody knows what came
-- of it; the rest was not begun. It is ready again after p_delay.
create or replace function esb_give_back(p_worker bigint, p_ids uuid[], p_attempts int[], p_lost boolean[], p_delay interval default '0')
returns table (id uuid, pool smallint) language sql volatile as $$
  with mine as materialized (
    select j.id, x.lost from job j join unnest(p_ids, p_attempts, p_lost) x(id, attempt, lost) on x.id = j.id and x.attempt = j.attempt
     where j.state = 'f' and j.worker_id = p_worker for update of j skip locked),
  upd as (
    update job j set state = case when mine.lost and (j.losses >= 4 or (j.pool in (1, 2) and j.control is not null)) then 'b' when p_delay > '0' then 's' else 'r' end::"char",
                     losses = j.losses + mine.lost::int,
                     run_at = case when p_delay > '0' then now() + p_delay else least(j.run_at, now()) end
      from mine where j.id = mine.id returning j.*, mine.lost),
  att as (
    insert into attempt (delivery_id, number, started_at, worker_id, outcome)
    select id, attempt, started_at, worker_id, 'unknown' from upd where pool = 2 and lost on conflict do nothing)
  select id, pool from upd
$$;

-- Whether the route of a delivery has a dead one block its key (`onDead`).
create or replace function esb_blocks_when_dead(p_route uuid, p_cursor jsonb) returns boolean language sql stable as $$
  select exists (select 1 from route r where r.id = p_route
                    and r.body->'destinations'->((p_cursor->>'i')::int)->>'onDead' = 'block')
$$;

-- Ends what the sweep has set aside. Work whose worker died five times over is taken for the cause: it ends as dead
-- (`worker_lost`) and waits for a person, instead of killing workers for ever; at the head of a key that a dead
-- delivery is to block, it blocks it. And what somebody wanted ended while it was under way is not begun once more.
create or replace function esb_poison(p_limit int) returns table (id uuid, lane_id int, okey text) language sql volatile set enable_seqscan = off as $$
  with found as materialized (
    select *, pool = 2 and okey is not null and control is null and esb_blocks_when_dead(route_id, cursor) as blocks,
           case control when 'c' then 'cancelled' else 'dead' end as status,
           case control when 'c' then null when 'd' then 'service_deleted' when 'k' then 'Parked' else 'worker_lost' end as class
      from job
     where state = 'b' and (losses >= 5 or control is not null) and pool in (1, 2) and not coalesce(cursor, '{}') ?| '{blocked,gather}'
     order by id limit p_limit for update skip locked),
  kept as (
    update job set cursor = coalesce(cursor, '{}') || '{"blocked": "worker_lost"}' where id = any(array(select id from found where blocks))),
  own as (select * from found where not blocks),
  del as (delete from job where id = any(array(select id from own))),
  hist as (
    insert into delivery (id, message_id, route_id, lane_id, status, attempts, class, cursor, seq, okey, created_at)
    select id, message_id, route_id, lane_id, status, attempt, class, cursor - 'held', seq, okey, created_at from own where pool = 2),
  dl as (
    insert into dead_letter (delivery_id, message_id, lane_id, route_id, client_id, class)
    select id, message_id, lane_id, route_id, (select m.client_id from message m where m.id = own.message_id), class
      from own where pool = 2 and status = 'dead'),
  ends as (
    insert into message_end (message_id, status, reason)
    select id, case status when 'dead' then 'failed' else status end, coalesce(class, status) from own where pool = 1)
  select own.id, own.lane_id, own.okey from own
$$;

-- The same for groups (57_gather): what one has gathered ends with it. In two statements: whoever adds to a group holds
-- its row, so that only a look after its lock sees all that is in it.
create or replace function esb_poison_groups(p_limit int) returns int language plpgsql volatile set enable_seqscan = off as $$
declare v_groups uuid[];
begin
  v_groups := array(select j.id from job j where j.state = 'b' and j.losses >= 5 and j.pool = 1 and j.cursor ? 'gather'
                     order by j.id limit p_limit for update skip locked);
  if v_groups = '{}' then return 0; end if;
  with own as materialized (
    select * from job j where j.parent_job = any(v_groups) and j.pool = 2 order by j.id for update),
  del as (delete from job j where j.id = any(array(select own.id from own))),
  hist as (
    insert into delivery (id, message_id, route_id, lane_id, status, attempts, class, cursor, seq, created_at)
    select id, message_id, route_id, lane_id, 'dead', attempt, 'worker_lost', cursor, seq, created_at from own)
  insert into dead_letter (delivery_id, message_id, lane_id, route_id, client_id, class)
  select id, message_id, lane_id, route_id, (select m.client_id from message m where m.id = own.message_id), 'worker_lost' from own;
  delete from job j where j.id = any(v_groups);
  return cardinality(v_groups);
end $$;

-- Makes ready what is due.
create or replace function esb_due(p_pool smallint, p_limit int) returns int language sql volatile set enable_seqscan = off as $$
  with d as materialized (
    select id from job where pool = p_pool and state = 's' and run_at <= now() order by run_at limit p_limit for update skip locked),
  u as (update job set state = 'r', cursor = cursor - 'held' where id = any(array(select id from d)) returning 1)
  select count(*)::int from u
$$;

-- What of all this there is to do, so that a look costs one statement as long as there is nothing: the processes of a
-- bus that rests look all the time, and whatever they do then delays the message that comes at that moment. p_pools:
-- for which of them `due` and `ready` are asked (null: all there are); `unknown`: p_worker has held something for
-- longer than p_long; `wake`: esb_wake, of a single pool. True at least where the functions
-- around it would find work; schedules that are due are not asked for.
create or replace function esb_upkeep_wanted(p_pools smallint[], p_worker bigint default null, p_long interval default null)
returns table (lost boolean, unknown boolean, due boolean, ready boolean, aside boolean, expired boolean, queued boolean, wake timestamptz)
language plpgsql stable set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
declare v_pools smallint[] := coalesce(p_pools, '{1,2,3,4,5}'::smallint[] || array(select q.pool from step_queue q));
begin
  return query select
    exists (select 1 from worker w where w.dead_at is null and w.beat_until < now())
      or exists (select 1 from job j where j.state = 'f' and (j.lease_until < now()
                  or exists (select 1 from worker w where w.id = j.worker_id and w.dead_at is not null))),
    exists (select 1 from job j where j.state = 'f' and j.worker_id = p_worker and j.started_at < now() - p_long),
    exists (select 1 from unnest(v_pools) p, lateral (
      select 1 from job j where j.pool = p and j.state = 's' and j.run_at <= now() limit 1) x),
    exists (select 1 from unnest(v_pools) p, lateral (select 1 from job j where j.pool = p and j.state = 'r' limit 1) x),
    exists (select 1 from job j where j.state = 'b' and j.pool in (1, 2) and (j.losses >= 5 or j.control is not null)),
    exists (select 1 from job j where j.expires_at <= now() and j.state <> 'f' and j.pool in (1, 2)),
    exists (select 1 from job j where j.state = 'q'),
    case when cardinality(v_pools) = 1 then esb_wake(v_pools[1]) end;
end $$;

-- Ends what has expired before it was delivered or routed; an attempt in flight counts.
create or replace function esb_expire(p_limit int) returns table (id uuid, lane_id int, okey text) language sql volatile set enable_seqscan = off as $$
  with own as materialized (
    select * from job where expires_at is not null and expires_at <= now() and state <> 'f' and pool in (1, 2)
     order by expires_at limit p_limit for update skip locked),
  del as (delete from job where id = any(array(select id from own))),
  hist as (
    insert into delivery (id, message_id, route_id, lane_id, status, attempts, class, cursor, seq, okey, created_at)
    select id, message_id, route_id, lane_id, 'expired', attempt, 'expired', cursor - 'held', seq, okey, created_at from own where pool = 2),
  ends as (insert into message_end (message_id, status, reason) select id, 'expired', 'expired before it was routed' from own where pool = 1)
  select own.id, own.lane_id, own.okey from own
$$;

-- Makes the first queued row of each key ready, if the key has no active row. Call it with the keys just inserted
-- or just finished, AFTER that commit and as a transaction of its own: two commits that each look before the other
-- is visible would leave the key stuck. On a unique violation (job_head) somebody else was first: call it again.
create or replace function esb_promote(p_lanes int[], p_keys text[]) returns int language plpgsql
set enable_seqscan = off set enable_bitmapscan = off as $$
declare v_heads uuid[]; n int;
begin
  v_heads := array(
    select h.id from (select distinct * from unnest(p_lanes, p_keys) x(l, k)) x
      cross join lateral (select q.id from job q where q.lane_id = x.l and q.okey = x.k and q.state = 'q' order by q.seq limit 1) h
     where not exists (select 1 from job a where a.lane_id = x.l and a.okey = x.k and a.state <> 'q'));
  if v_heads = '{}' then return 0; end if;
  -- Never waits for a row: a head that was promoted and claimed since the look above is locked by whoever records
  -- it, who waits for other rows in an order of his own, and waiting for him here was a deadlock. What is locked is
  -- promoted, or ended and its key promoted, by the one who holds it. Locked apart from the look: SKIP LOCKED there
  -- would pass by a head and take the row behind it.
  -- By the clock: the look above sees rows that were made after this transaction began, which are due all the same.
  update job j set state = case when j.run_at > clock_timestamp() then 's' else 'r' end::"char"
   where j.state = 'q' and j.id = any(array(
     select l.id from job l where l.id = any(v_heads) and l.state = 'q' order by l.id for update skip locked));
  get diagnostics n = row_count;
  return n;
end $$;

-- The net below it, for a crash between commit and promote: every key whose rows are all queued. A loose scan.
create or replace function esb_promote_all() returns int language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
declare l int[]; k text[];
begin
  with recursive w(l, k) as (
    (select lane_id, okey from job where state = 'q' order by lane_id, okey limit 1)
    union all
    select n.lane_id, n.okey from w, lateral (
      select j.lane_id, j.okey from job j where j.state = 'q' and (j.lane_id, j.okey) > (w.l, w.k) order by j.lane_id, j.okey limit 1) n)
  select array_agg(w.l), array_agg(w.k) into l, k from w;
  if l is null then return 0; end if;
  return esb_promote(l, k);
end $$;
