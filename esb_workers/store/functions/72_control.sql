-- What people do to runs, and what a run does about it. Lock order: limit -> execution -> scope -> own job -> parent job.
-- Each esb_run_… answers null (no such run), 'ok', or the status that forbids it.

-- Locks a run and its scopes, in the order that strands lock them.
create or replace function esb_hold_run(p_execution uuid) returns text language plpgsql as $$
declare v_status text;
begin
  perform esb_limit_lock(p_execution);
  select status into v_status from execution where id = p_execution for update;
  perform 1 from scope where execution_id = p_execution order by job_id, path for update;
  return v_status;
end $$;

-- Without compensation this is the end. With it the root strand goes on alone: once every call under way has ended it
-- undoes what was completed.
create or replace function esb_run_cancel(p_execution uuid, p_reason text, p_compensate boolean, p_data text) returns text
language plpgsql as $$
declare v_status text := esb_hold_run(p_execution); v_parent uuid; v_limit text;
begin
  if v_status is null or v_status not in ('open', 'paused') then return v_status; end if;
  if p_compensate then
    perform esb_note(p_execution, 'run.cancelling', p_data);
    update execution set status = 'open', undo = true, reason = p_reason, paused_at = null, deadline = null, updated_at = now()
     where id = p_execution;
    perform esb_end_strands(p_execution, false);
    update job set control = 'u', inbox = inbox + 1, run_at = case when state = 'f' then run_at else now() end,
                   pool = case when state = 'f' then pool else 3 end,   -- its queue may have no worker
                   state = case when state = 'f' then state else 'r' end::"char" where id = p_execution;
    return 'ok';
  end if;
  perform esb_note(p_execution, 'run.cancelled', p_data);
  update execution set status = 'cancelled', reason = p_reason, updated_at = now(), finished_at = now(),
    fence = coalesce((select attempt from job where id = p_execution), fence)
   where id = p_execution returning parent_job, limit_key into v_parent, v_limit;
  perform esb_end_strands(p_execution);
  delete from business_key where execution_id = p_execution;
  if v_limit is not null then perform esb_admit(v_limit); end if;
  if v_parent is not null then perform esb_poke(v_parent); end if;
  return 'ok';
end $$;

-- The root of a run that is cancelled with compensation stops all other strands, and waits until they, and the runs they
-- wait for, are gone: how many are left; -1 if the run is no longer open. ES001: fenced.
create or replace function esb_settle(p_job uuid, p_attempt int) returns int language plpgsql as $$
declare v_left int;
begin
  if esb_hold_run(p_job) <> 'open' then return -1; end if;
  perform esb_end_strands(p_job, false);
  update job set control = nullif(control, 'u') where id = p_job and attempt = p_attempt and state = 'f';
  if not found then raise exception 'fenced' using errcode = 'ES001'; end if;
  v_left := (select count(*) from job where execution_id = p_job and id <> p_job)
          + (select count(*) from execution c where c.parent_id = p_job and c.parent_job is not null and c.status in ('open', 'paused'));
  if v_left > 0 then
    update job set state = 's', run_at = now() + interval '200 ms', worker_id = null where id = p_job;
  end if;
  return v_left;
end $$;

create or replace function esb_run_pause(p_execution uuid, p_data text) returns text language plpgsql as $$
declare v_status text := esb_hold_run(p_execution);
begin
  if v_status is distinct from 'open' then return v_status; end if;
  perform esb_note(p_execution, 'run.paused', p_data);
  update execution set status = 'paused', paused_at = now(), updated_at = now() where id = p_execution;
  for i in 1..2 loop   -- twice: see esb_end_strands
    update job set control = 'p', state = case when state in ('r', 's') then 'p' else state end::"char"
     where execution_id = p_execution and (control is null or control = 'u');
  end loop;
  return 'ok';
end $$;

-- A step has used up its retries, and its definition wants somebody to decide: its strand stops there, and with it the
-- run. 'ok', or the status with which the run has ended meanwhile. ES001: fenced.
create or replace function esb_exhaust(p_job uuid, p_attempt int, p_n int, p_types text[], p_paths text[], p_visits int[],
  p_iters int[], p_data text[], p_told text) returns text language plpgsql as $$
declare v_execution uuid := (select execution_id from job where id = p_job); v_status text := esb_hold_run(v_execution);
begin
  perform 1 from job where id = p_job and attempt = p_attempt and state = 'f' for update;
  if not found then raise exception 'fenced' using errcode = 'ES001'; end if;
  perform esb_journal(v_execution, p_job, p_n, p_types, p_paths, p_visits, p_iters, p_data);
  if v_status not in ('open', 'paused') then return v_status; end if;
  update job set state = 'p', control = 'p', worker_id = null where id = p_job;
  perform esb_run_pause(v_execution, p_told);   -- unless somebody has just done so
  return 'ok';
end $$;

-- Every strand looks again at what it was waiting for: timers may have come due, children ended, signals arrived.
create or replace function esb_run_resume(p_execution uuid, p_data text) returns text language plpgsql as $$
declare v_status text := esb_hold_run(p_execution);
begin
  if v_status is distinct from 'paused' then return v_status; end if;
  perform esb_note(p_execution, 'run.resumed', p_data);
  update execution set status = 'open', deadline = deadline + (now() - paused_at), paused_at = null, updated_at = now() where id = p_execution;
  update job set control = null, inbox = inbox + 1, run_at = case when state = 'p' then now() else run_at end,
                 pool = case when state = 'p' then 3 else pool end,   -- what kept it in a queue may have been skipped
                 state = case when state = 'p' then 'r' else state end::"char"
   where execution_id = p_execution and control = 'p';
  return 'ok';
end $$;

-- Opens a run that has ended, held by the caller, who journals from where it goes on. The new root job's fence goes on
-- above the old one's: a worker that still believes to hold the old one stays fenced. Answers 'ok'; 'busy': its business
-- key belongs to another run now; 'in_flight': a call of it, cancelled, is still under way.
create or replace function esb_reopen(p_execution uuid) returns text language plpgsql as $$
declare e execution; w workflow;
begin
  if exists (select from job where id = p_execution) then return 'in_flight'; end if;
  select * into e from execution where id = p_execution;
  select * into w from workflow where id = e.workflow_id;
  if e.business_key is not null then
    insert into business_key (workflow, key, execution_id) values (w.name, e.business_key, p_execution) on conflict do nothing;
    if not found then return 'busy'; end if;
  end if;
  -- What its steps waited for is nobody's any more: they will start anew.
  update execution set parent_job = '00000000-0000-0000-0000-000000000000'
   where parent_id = p_execution and parent_job is not null and status in ('open', 'paused');
  update execution set status = 'open', finished_at = null, error = null, error_class = null, output = null, context = null,
    reason = null, undo = false, skips = '{}', updated_at = now(),
    deadline = now() + make_interval(secs => (w.definition::jsonb->>'timeout')::float8 / 1000) where id = p_execution;
  insert into job (id, pool, lane_id, state, run_at, execution_id, attempt)
  values (p_execution, 3, w.lane_id, case when e.limit_key is not null and e.limit_n <= esb_under_way(e.limit_key) then 'h' else 'r' end::"char",
          now() - make_interval(secs => 30 * e.priority), p_execution, greatest(e.fence, 1));
  return 'ok';
end $$;

-- From the failed step on, with a fresh budget.
create or replace function esb_run_retry(p_execution uuid, p_data text) returns text language plpgsql as $$
declare v_status text := esb_hold_run(p_execution);
begin
  if v_status is null or v_status not in ('failed', 'timed_out') then return v_status; end if;
  v_status := esb_reopen(p_execution);
  if v_status = 'ok' then
    insert into event (execution_id, job_id, n, type, data)
    select p_execution, p_execution, coalesce(max(n), 0) + 1, 'run.retried', p_data
      from event where execution_id = p_execution and job_id = p_execution;
  end if;
  return v_status;
end $$;

-- Runs that a strand started and waited for, and no longer does: because it has ended, or its step has. Their ids.
create or replace function esb_orphans(p_limit int) returns setof uuid language sql stable as $$
  select c.id from execution c
   where c.parent_job is not null and c.status in ('open', 'paused') and not c.undo
     and not exists (select from job j where j.id = c.parent_job)
   order by c.id limit p_limit
$$;

-- Keeps a signal and wakes the strands that wait for its name; those in flight look again before they park.
create or replace function esb_run_signal(p_execution uuid, p_name text, p_payload text) returns text language plpgsql as $$
declare v_status text;
begin
  select status into v_status from execution where id = p_execution for share;
  if v_status is null or v_status not in ('open', 'paused') then return v_status; end if;
  insert into signal (execution_id, name, payload) values (p_execution, p_name, p_payload);
  perform esb_note(p_execution, 'run.signalled', json_build_object('name', p_name)::text);
  update job set inbox = inbox + 1,
                 run_at = case when state in ('p', 's') and control is null then now() else run_at end,
                 state = case when state in ('p', 's') and control is null then 'r' else state end::"char"
   where execution_id = p_execution and (state = 'f' or cursor->>'signal' = p_name);
  return 'ok';
end $$;

-- The oldest signal of a name that nobody took, or the one this visit of the step took before a crash.
create or replace function esb_signal_take(p_job uuid, p_attempt int, p_name text, p_visit int) returns table (payload text) language plpgsql as $$
declare v_execution uuid;
begin
  select execution_id into v_execution from job where id = p_job and attempt = p_attempt and state = 'f' for update;
  if not found then raise exception 'fenced' using errcode = 'ES001'; end if;
  return query
  update signal s set taken_by = p_job, taken_for = p_visit
   where s.id = (select x.id from signal x
                  where x.execution_id = v_execution and x.name = p_name and (x.taken_by is null or (x.taken_by = p_job and x.taken_for = p_visit))
                  order by x.taken_by is null, x.id limit 1 for update skip locked)
  returning s.payload;
end $$;

-- A strand whose worker died five times over fails its run instead of killing workers for ever.
create or replace function esb_run_poison(p_limit int) returns setof uuid language plpgsql set enable_seqscan = off as $$
declare v_id uuid;
begin
  for v_id in select distinct execution_id from job where state = 'b' and execution_id is not null and losses >= 5 limit p_limit loop
    if esb_hold_run(v_id) in ('open', 'paused') then
      perform esb_note(v_id, 'run.failed', '{"error":{"class":"WorkerLost","message":"the workers that ran this were lost five times"}}');
      update execution set status = 'failed', error_class = 'WorkerLost', updated_at = now(), finished_at = now(),
        error = '{"class":"WorkerLost","message":"the workers that ran this were lost five times"}',
        fence = coalesce((select attempt from job where id = v_id), fence) where id = v_id;
    end if;
    perform esb_end_strands(v_id);
    delete from business_key where execution_id = v_id;
    perform esb_admit(e.limit_key) from execution e where e.id = v_id and e.limit_key is not null;
    perform esb_poke(e.parent_job) from execution e where e.id = v_id and e.parent_job is not null;
    return next v_id;
  end loop;
end $$;
