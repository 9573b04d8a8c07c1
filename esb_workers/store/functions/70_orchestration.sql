-- The strands of workflow executions. A strand (the root, a branch, a runner of a foreach) is a job of pool 3 (or of a
-- step_queue's pool, while it is at a step of that queue):
-- the same claim, fence and lease as a delivery's. Lock order, everywhere: execution -> scope -> own job -> parent job.
--
-- Events come as parallel arrays (type, path, visit, iteration, data). "Fenced" is errcode ES001.

-- Appends to a strand's journal, numbered from p_n; with p_stand only the first so many.
create or replace function esb_journal(p_execution uuid, p_job uuid, p_n int, p_types text[], p_paths text[], p_visits int[],
  p_iters int[], p_data text[], p_stand int default null) returns void language plpgsql as $$
begin
  insert into event (execution_id, job_id, n, type, path, visit, iteration, data)
  select p_execution, p_job, p_n + u.o::int - 1, u.t, u.p, u.v, u.i, u.d
    from unnest(p_types, p_paths, p_visits, p_iters, p_data) with ordinality u(t, p, v, i, d, o)
   where p_stand is null or u.o <= p_stand;
end $$;

-- What a person did to a run. The nil strand numbers it apart from the strands, whose workers count for themselves.
create or replace function esb_note(p_execution uuid, p_type text, p_data text) returns void language plpgsql as $$
begin
  insert into event (execution_id, job_id, n, type, data)
  select p_execution, '00000000-0000-0000-0000-000000000000', coalesce(max(n), 0) + 1, p_type, p_data
    from event where execution_id = p_execution and job_id = '00000000-0000-0000-0000-000000000000';
end $$;

-- One transition of a strand: fence, journal, new deadline of its lease. No row: the lease is lost, stop. With
-- control set only the first p_stand events are kept: what has happened stands, what was about to begin does not.
create or replace function esb_step(p_job uuid, p_attempt int, p_n int, p_stand int, p_types text[], p_paths text[],
  p_visits int[], p_iters int[], p_data text[], p_lease interval, p_snapshot text)
returns table (control "char", inbox int, rev bigint) language plpgsql as $$
declare v_execution uuid;
begin
  rev := (select sum(r.n) from revision r);
  update job j set lease_until = now() + p_lease where j.id = p_job and j.attempt = p_attempt and j.state = 'f'
    returning j.execution_id, j.control, j.inbox into v_execution, control, inbox;
  if not found then return; end if;
  insert into event (execution_id, job_id, n, type, path, visit, iteration, data)
  select v_execution, p_job, p_n + u.o::int - 1, u.t, u.p, u.v, u.i, u.d
    from unnest(p_types, p_paths, p_visits, p_iters, p_data) with ordinality u(t, p, v, i, d, o)
   where control is null or u.o <= p_stand;
  if p_snapshot is not null and control is null then
    insert into snapshot (job_id, execution_id, n, state) values (p_job, v_execution, p_n - 1 + cardinality(p_types), p_snapshot)
    on conflict (job_id) do update set n = excluded.n, state = excluded.state;
  end if;
  return next;
end $$;

-- The same for strands of different runs in one statement, as a group of threads makes them: a commit costs as much as
-- ten rows. Strands whose lease is lost are left out of the answer. The locks are taken by id, as whoever locks strands
-- of several runs takes them; two strands of one run never stand here, for a run's end locks its own in any order.
-- The lock is the fence: the row itself is written only when the lease has become more than 5 s shorter than it should
-- be, which is a fifth of a quick step's cost and leaves a dead row less.
create or replace function esb_steps(p_rows json) returns table (i int, control "char", inbox int, rev bigint)
language sql volatile set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  with r as materialized (
    select * from json_to_recordset(p_rows)
      as r(i int, job uuid, attempt int, n int, stand int, lease float8, snapshot text, events json)),
  own as materialized (
    select r.*, j.execution_id, j.control, j.inbox, j.lease_until from r join job j on j.id = r.job and j.attempt = r.attempt and j.state = 'f'
     order by j.id for no key update of j),
  held as (
    update job j set lease_until = now() + make_interval(secs => own.lease) from own
     where j.id = own.job and own.lease_until < now() + make_interval(secs => own.lease - 5)),
  told as (
    insert into event (execution_id, job_id, n, type, path, visit, iteration, data)
    select own.execution_id, own.job, own.n + e.o::int - 1, e.v->>0, e.v->>1, (e.v->>2)::int, (e.v->>3)::int, e.v->>4
      from own, json_array_elements(own.events) with ordinality e(v, o)
     where own.control is null or e.o <= own.stand order by own.i, e.o),
  kept as (
    insert into snapshot (job_id, execution_id, n, state)
    select own.job, own.execution_id, own.n - 1 + json_array_length(own.events), own.snapshot
      from own where own.snapshot is not null and own.control is null
    on conflict (job_id) do update set n = excluded.n, state = excluded.state)
  select own.i, own.control, own.inbox, (select sum(v.n) from revision v)::bigint from own
$$;

-- All that is needed to go on with a strand, as its holder (p_attempt) or as one who has locked it (null). A function,
-- because as a statement it is planned anew for every strand, which costs five times its execution.
create or replace function esb_load(p_job uuid, p_attempt int)
returns table (now timestamptz, control "char", inbox int, place jsonb, parent_job uuid, parent_path text, execution_id uuid,
  workflow_id uuid, client_id uuid, waited_for boolean, status text, correlation_id text, traceparent text, input text,
  deadline timestamptz, undo boolean, skips text[], allowed_services text[], revision bigint, seed text, snapshot_n int,
  snapshot text, events json) language plpgsql stable as $$
#variable_conflict use_column
declare v_execution uuid; v_n int;
begin
  select now(), j.control, j.inbox, j.cursor, j.parent_job, j.parent_path, e.id, e.workflow_id, e.client_id,
         e.parent_job is not null, e.status, e.correlation_id, e.traceparent, e.input, e.deadline, e.undo, e.skips,
         c.allowed_services, s.seed, p.n, p.state
    into now, control, inbox, place, parent_job, parent_path, v_execution, workflow_id, client_id, waited_for, status,
         correlation_id, traceparent, input, deadline, undo, skips, allowed_services, seed, v_n, snapshot
    from job j
    join execution e on e.id = j.execution_id
    left join client c on c.id = e.client_id
    left join scope s on s.job_id = j.parent_job and s.path = j.parent_path
    left join snapshot p on p.job_id = j.id
   where j.id = p_job and (p_attempt is null or j.attempt = p_attempt and j.state = 'f');
  if not found then return; end if;
  execution_id := v_execution;
  snapshot_n := v_n;
  revision := (select sum(r.n) from revision r);
  events := (select coalesce(json_agg(json_build_array(v.n, v.type, v.path, v.visit, v.iteration, v.data) order by v.n), '[]')
               from event v where v.execution_id = v_execution and v.job_id = p_job and v.n > coalesce(v_n, 0));
  return next;
end $$;

-- Lets go of a strand until p_run_at (null: until it is woken), unless somebody wanted its attention since it
-- last looked (inbox) or wants it to stop: then it stays in flight and looks again. The events stand either way.
create or replace function esb_park(p_job uuid, p_attempt int, p_inbox int, p_n int, p_types text[], p_paths text[],
  p_visits int[], p_iters int[], p_data text[], p_run_at timestamptz, p_signal text)
returns table (control "char", inbox int, parked boolean) language plpgsql as $$
declare v_execution uuid;
begin
  update job j
     set state = case when not x.go then j.state when p_run_at is null then 'p' else 's' end::"char",
         run_at = case when x.go then coalesce(p_run_at, j.run_at) else j.run_at end,
         worker_id = case when x.go then null else j.worker_id end,
         cursor = case when p_signal is null then j.cursor - 'signal'
                       else coalesce(j.cursor, '{}') || jsonb_build_object('signal', p_signal) end
    from (select y.id, y.inbox = p_inbox and y.control is null as go from job y where y.id = p_job for update) x
   where j.id = x.id and j.attempt = p_attempt and j.state = 'f'
  returning j.execution_id, j.control, j.inbox, x.go into v_execution, control, inbox, parked;
  if not found then return; end if;
  perform esb_journal(v_execution, p_job, p_n, p_types, p_paths, p_visits, p_iters, p_data);
  return next;
end $$;

-- Stops a strand that is wanted to pause, or whose run is paused though nobody told it, because it was forked at
-- that moment. False: no longer wanted, or no longer ours.
create or replace function esb_halt(p_job uuid, p_attempt int) returns boolean language plpgsql as $$
begin
  perform 1 from execution e join job j on j.execution_id = e.id where j.id = p_job for share of e;
  update job j set state = 'p', control = 'p', worker_id = null
   where j.id = p_job and j.attempt = p_attempt and j.state = 'f' and j.control is distinct from 'c'
     and exists (select from execution e where e.id = j.execution_id and e.status = 'paused');
  return found;
end $$;

-- The parent parks and its children appear in one transaction: no child can end before the parent waits.
-- p_run_at: the run's deadline, if it has one.
create or replace function esb_fork(p_job uuid, p_attempt int, p_inbox int, p_n int, p_types text[], p_paths text[], p_visits int[],
  p_iters int[], p_data text[], p_run_at timestamptz, p_path text, p_need int, p_tolerated int, p_total int, p_seed text,
  p_kids uuid[], p_cursors text[])
returns table (control "char", inbox int, parked boolean) language plpgsql as $$
declare v_execution uuid; v_lane int;
begin
  update job j set state = case when p_run_at is null then 'p' else 's' end::"char", run_at = coalesce(p_run_at, j.run_at), worker_id = null
   where j.id = p_job and j.attempt = p_attempt and j.state = 'f' and j.inbox = p_inbox and j.control is null
  returning j.execution_id, j.lane_id, j.control, j.inbox, true into v_execution, v_lane, control, inbox, parked;
  if not found then
    return query select j.control, j.inbox, false from job j where j.id = p_job and j.attempt = p_attempt and j.state = 'f';
    return;
  end if;
  perform esb_journal(v_execution, p_job, p_n, p_types, p_paths, p_visits, p_iters, p_data);
  insert into scope (job_id, path, execution_id, total, kids, open, need, tolerated, seed)
  values (p_job, p_path, v_execution, p_total, cardinality(p_kids), cardinality(p_kids), p_need, p_tolerated, p_seed);
  insert into job (id, pool, lane_id, state, run_at, parent_job, parent_path, execution_id, cursor)
  select k.id, 3, v_lane, 'r', now() - make_interval(secs => 30 * e.priority), p_job, p_path, v_execution, k.cursor::jsonb
    from unnest(p_kids, p_cursors) k(id, cursor), execution e where e.id = v_execution;
  return next;
end $$;

-- A child ends. Wakes its parent once: when enough have succeeded, or no longer can. False: the parent was not woken.
create or replace function esb_join(p_job uuid, p_attempt int, p_n int, p_types text[], p_paths text[], p_visits int[],
  p_iters int[], p_data text[], p_ok boolean) returns boolean language plpgsql as $$
declare s scope; v_parent uuid; v_path text; v_execution uuid;
begin
  select parent_job, parent_path into v_parent, v_path from job where id = p_job;
  update scope set open = open - 1, failed = failed + (not p_ok)::int where job_id = v_parent and path = v_path returning * into s;
  delete from job where id = p_job and attempt = p_attempt and state = 'f' returning execution_id into v_execution;
  if not found then raise exception 'fenced' using errcode = 'ES001'; end if;   -- takes the counter back with it
  delete from snapshot where job_id = p_job;
  perform esb_journal(v_execution, p_job, p_n, p_types, p_paths, p_visits, p_iters, p_data);
  if s.job_id is null or s.closed then return false; end if;
  if s.total is not null then            -- a foreach: `failed` counts items, and only its last runner ends it
    if s.open > 0 then return false; end if;
  elsif s.kids - s.open - s.failed < s.need and s.failed <= s.kids - s.need then
    return false;
  end if;
  update scope set closed = true where job_id = v_parent and path = v_path;
  update job set inbox = inbox + 1, run_at = case when state in ('p', 's') and control is null then now() else run_at end,
                 state = case when state in ('p', 's') and control is null then 'r' else state end::"char" where id = v_parent;
  return true;
end $$;

-- A runner of a foreach takes the next p_k indexes. Its cursor remembers them: a crash repeats only these. What it has
-- folded of the range before is journaled with it, else that would be forgotten. No row: there are no more, and
-- nothing was written.
create or replace function esb_take(p_job uuid, p_attempt int, p_n int, p_types text[], p_paths text[], p_visits int[],
  p_iters int[], p_data text[], p_k int) returns table (lo int, hi int) language plpgsql as $$
declare v_parent uuid; v_path text; v_execution uuid;
begin
  select parent_job, parent_path into v_parent, v_path from job where id = p_job;
  update scope s set next_i = s.next_i + p_k where s.job_id = v_parent and s.path = v_path and not s.closed and s.next_i < s.total
    returning s.next_i - p_k, least(s.next_i, s.total) into lo, hi;
  if not found then return; end if;
  update job set cursor = cursor || jsonb_build_object('lo', lo, 'hi', hi), lease_until = greatest(lease_until, now() + interval '60 s')
   where id = p_job and attempt = p_attempt and state = 'f' returning execution_id into v_execution;
  if not found then raise exception 'fenced' using errcode = 'ES001'; end if;
  perform esb_journal(v_execution, p_job, p_n, p_types, p_paths, p_visits, p_iters, p_data);
  return next;
end $$;

-- An item of a foreach has failed: journaled and counted in one transaction. Over what is tolerated the scope is
-- closed (the other runners see it when they next take) and the parent woken.
create or replace function esb_item_failed(p_job uuid, p_attempt int, p_n int, p_types text[], p_paths text[], p_visits int[],
  p_iters int[], p_data text[]) returns table (control "char", inbox int) language plpgsql as $$
declare s scope; v_parent uuid; v_path text; v_execution uuid;
begin
  select parent_job, parent_path into v_parent, v_path from job where id = p_job;
  update scope set failed = failed + 1 where job_id = v_parent and path = v_path returning * into s;
  update job j set lease_until = greatest(j.lease_until, now() + interval '60 s') where j.id = p_job and j.attempt = p_attempt and j.state = 'f'
    returning j.execution_id, j.control, j.inbox into v_execution, control, inbox;
  if not found then raise exception 'fenced' using errcode = 'ES001'; end if;
  perform esb_journal(v_execution, p_job, p_n, p_types, p_paths, p_visits, p_iters, p_data);
  if s.failed > s.tolerated and not s.closed then
    update scope set closed = true where job_id = v_parent and path = v_path;
    update job j set inbox = j.inbox + 1, run_at = case when j.state in ('p', 's') and j.control is null then now() else j.run_at end,
      state = case when j.state in ('p', 's') and j.control is null then 'r' else j.state end::"char" where j.id = v_parent;
  end if;
  return next;
end $$;

-- Stops the children of a closed scope, or of every scope of a strand (p_path null). They see it when next they
-- look. Safe to repeat.
create or replace function esb_cull(p_job uuid, p_path text) returns int language plpgsql as $$
declare n int;
begin
  perform 1 from scope where job_id = p_job and (p_path is null or path = p_path) order by path for update;
  update scope set closed = true where job_id = p_job and (p_path is null or path = p_path) and not closed;
  update job set control = 'c', inbox = inbox + 1, state = case when state in ('p', 's') then 'r' else state end::"char"
   where id = any(array(select j.id from job j where j.parent_job = p_job and (p_path is null or j.parent_path = p_path) order by j.id for update));
  get diagnostics n = row_count;
  return n;
end $$;

-- A stopped strand leaves: its last events, its children stopped, its row gone.
create or replace function esb_leave(p_job uuid, p_attempt int, p_n int, p_types text[], p_paths text[], p_visits int[],
  p_iters int[], p_data text[]) returns boolean language plpgsql as $$
declare v_execution uuid;
begin
  perform esb_cull(p_job, null);
  delete from job where id = p_job and attempt = p_attempt and state = 'f' returning execution_id into v_execution;
  if not found then return false; end if;
  delete from snapshot where job_id = p_job;
  perform esb_journal(v_execution, p_job, p_n, p_types, p_paths, p_visits, p_iters, p_data);
  return true;
end $$;

-- What is left of an execution's strands when it ends (or, with p_root false, when its root goes on alone): idle ones
-- go, those in flight are told. Twice, because a strand whose row the first look waited for may have forked
-- meanwhile. The caller holds the execution and its scopes.
create or replace function esb_end_strands(p_execution uuid, p_root boolean default true) returns void language plpgsql as $$
begin
  for i in 1..2 loop
    update job set control = 'c' where execution_id = p_execution and (p_root or id <> p_execution);
    delete from job where execution_id = p_execution and state <> 'f' and (p_root or id <> p_execution);
  end loop;
  delete from scope where execution_id = p_execution;
end $$;

-- Gives a strand to the workers of a queue of steps, or back to the pool (p_queue null). False: the lease is lost, or
-- somebody wants it to stop.
create or replace function esb_hand(p_job uuid, p_attempt int, p_queue text) returns boolean language plpgsql as $$
begin
  if p_queue is not null then insert into step_queue (name) values (p_queue) on conflict do nothing; end if;
  update job set pool = coalesce((select q.pool from step_queue q where q.name = p_queue), 3), state = 'r', run_at = now(), worker_id = null
   where id = p_job and attempt = p_attempt and state = 'f' and control is null;
  return found;
end $$;

-- Takes back root strands that are over their run's deadline from queues whose workers do not come for them.
create or replace function esb_reclaim() returns int language plpgsql as $$
declare n int;
begin
  if not exists (select 1 from step_queue) then return 0; end if;   -- as on most buses: nothing else is asked
  update job j set pool = 3, state = 'r', run_at = now() from execution e
   where j.pool >= 100 and j.state in ('r', 's', 'p') and j.control is null and e.id = j.id and e.deadline <= now();
  get diagnostics n = row_count;
  return n;
end $$;

-- Wakes a strand of another run that waits for this one.
create or replace function esb_poke(p_job uuid) returns void language sql as $$
  update job set inbox = inbox + 1, run_at = case when state in ('p', 's') and control is null then now() else run_at end,
                 state = case when state in ('p', 's') and control is null then 'r' else state end::"char" where id = p_job
$$;

-- The last transition of a run, in one transaction: fence, journal, result, branches, business key, waiting parent.
-- Answers 'ok', or the status that forbids it (paused, cancelled): the strand then looks again. ES001: fenced.
create or replace function esb_finish(p_job uuid, p_attempt int, p_n int, p_types text[], p_paths text[], p_visits int[],
  p_iters int[], p_data text[], p_status text, p_started timestamptz, p_context text, p_output text, p_error text, p_class text)
returns text language plpgsql as $$
declare e execution;
begin
  perform esb_limit_lock(p_job);
  select * into e from execution where id = p_job for update;
  if e.status <> 'open' then return e.status; end if;
  if e.undo and exists (select from job where id = p_job and control = 'u') then return 'cancelling'; end if;
  perform 1 from scope where execution_id = p_job order by job_id, path for update;
  delete from job where id = p_job and attempt = p_attempt and state = 'f';
  if not found then raise exception 'fenced' using errcode = 'ES001'; end if;
  perform esb_journal(p_job, p_job, p_n, p_types, p_paths, p_visits, p_iters, p_data);
  update execution set status = p_status, context = p_context, output = p_output, error = p_error, error_class = p_class, fence = p_attempt,
    started_at = coalesce(started_at, p_started), updated_at = now(), finished_at = now() where id = p_job;
  perform esb_end_strands(p_job);
  if p_status not in ('failed', 'timed_out') then delete from snapshot where execution_id = p_job; end if;
  if e.business_key is not null then delete from business_key where execution_id = p_job; end if;
  if e.limit_key is not null then perform esb_admit(e.limit_key); end if;
  if e.parent_job is not null then perform esb_poke(e.parent_job); end if;
  return 'ok';
end $$;
