-- Starting runs. Where the workflow limits how many run at once, starts and ends of runs that share a limit_key take
-- turns under an advisory lock; it is taken before any row, so lock order is: limit -> execution -> scope -> jobs.

create or replace function esb_limit_lock(p_execution uuid) returns void language plpgsql as $$
declare v_key text := (select limit_key from execution where id = p_execution);
begin
  if v_key is not null then perform pg_advisory_xact_lock(hashtextextended('limit:' || v_key, 0)); end if;
end $$;

-- Lets held runs go while there is room: by priority, then in order. The caller holds the limit's lock. Time that was
-- spent held is not the run's; it began with the job, which a rerun has a new one of.
create or replace function esb_admit(p_key text) returns int language plpgsql as $$
declare v record; v_count int := 0;
begin
  loop
    select e.id, e.limit_n, j.created_at into v from execution e join job j on j.id = e.id
     where e.limit_key = p_key and e.status in ('open', 'paused') and j.state = 'h' order by e.priority desc, e.id limit 1;
    exit when not found or v.limit_n <= (select count(*) from execution e join job j on j.id = e.id
      where e.limit_key = p_key and e.status in ('open', 'paused') and j.state <> 'h');
    update job set state = case when run_at > now() then 's' else 'r' end::"char" where id = v.id and state = 'h';
    update execution set deadline = deadline + (now() - v.created_at) where id = v.id and deadline is not null;
    v_count := v_count + 1;
  end loop;
  return v_count;
end $$;

-- The net below it, should a held run ever be passed by.
create or replace function esb_admit_all() returns int language plpgsql set enable_seqscan = off as $$
declare v_key text; v_count int := 0;
begin
  for v_key in select distinct e.limit_key from job j join execution e on e.id = j.id where j.pool = 3 and j.state = 'h' loop
    if pg_try_advisory_xact_lock(hashtextextended('limit:' || v_key, 0)) then v_count := v_count + esb_admit(v_key); end if;
  end loop;
  return v_count;
end $$;

-- Starts a run: its row, its root strand, its business key. Answers 'ok'; 'gone' when the workflow was deleted (the lock
-- keeps a delete from missing this run); 'existing' and the run that this delivery or due time has started before, or
-- that has the business key where it is wanted back; 'busy' and the run that has the key; 'limit' when as many run as
-- may. ES003: what the caller knows of its client (p_rev, the revision of `clients`; null: nothing was remembered) is out
-- of date.
--   p_reuse: allow_after_end (one open run a key), reject (one run a key, ever), return_existing (the latest, if any).
--   p_on_limit: queue, reject, cancel_oldest.  p_rate: starts a second; what comes sooner begins later, in order.
create or replace function esb_execute(p_id uuid, p_workflow uuid, p_lane int, p_client uuid, p_correlation text, p_trace text,
  p_key_of text, p_business_key text, p_priority smallint, p_input text, p_timeout_ms bigint, p_rev bigint,
  p_reuse text default 'allow_after_end', p_limit_key text default null, p_limit int default null, p_on_limit text default 'queue',
  p_rate float8 default null, p_delay_ms bigint default 0, p_schedule uuid default null, p_due timestamptz default null,
  p_delivery uuid default null, p_parent uuid default null, p_waiting uuid default null)
returns table (outcome text, id uuid) language plpgsql as $$
declare v_other uuid; v_start timestamptz := now() + make_interval(secs => p_delay_ms / 1000.0); v_held boolean := false;
begin
  if p_rev <> (select r.n from revision r where r.topic = 'clients') then raise exception 'stale revision' using errcode = 'ES003'; end if;
  if p_limit_key is not null then perform pg_advisory_xact_lock(hashtextextended('limit:' || p_limit_key, 0)); end if;
  if p_delivery is not null then
    perform pg_advisory_xact_lock(hashtextextended('delivery:' || p_delivery, 0));
    select e.id into v_other from execution e where e.delivery_id = p_delivery;
    if found then return query select 'existing', v_other; return; end if;
  end if;
  perform 1 from workflow w where w.id = p_workflow and w.deleted_at is null for key share;
  if not found then return query select 'gone', null::uuid; return; end if;
  if p_business_key is not null then
    insert into business_key (workflow, key, execution_id) values (p_key_of, p_business_key, p_id) on conflict do nothing;
    if not found then
      select b.execution_id into v_other from business_key b where b.workflow = p_key_of and b.key = p_business_key;
    elsif p_reuse <> 'allow_after_end' then
      select e.id into v_other from execution e join workflow w on w.id = e.workflow_id
       where e.business_key = p_business_key and w.name = p_key_of order by e.id desc limit 1;
    end if;
    if v_other is not null then
      delete from business_key b where b.execution_id = p_id;
      return query select case when p_reuse = 'return_existing' then 'existing' else 'busy' end, v_other;
      return;
    end if;
  end if;
  if p_limit_key is not null then
    v_held := p_limit <= esb_under_way(p_limit_key);
    if v_held and p_on_limit = 'cancel_oldest' then
      -- One that is locked is ending or being told something: then this run is held until that is through.
      for v_other in select e.id from execution e join job j on j.id = e.id
          where e.limit_key = p_limit_key and e.status in ('open', 'paused') and j.state <> 'h'
          order by e.id limit esb_under_way(p_limit_key) - p_limit + 1 for update of e skip locked loop
        perform esb_run_cancel(v_other, 'a newer run took its place', false,
                               '{"by":"bus","reason":"a newer run took its place"}');
      end loop;
      v_held := p_limit <= esb_under_way(p_limit_key);
    elsif v_held and p_on_limit = 'reject' then
      if p_business_key is not null then delete from business_key b where b.execution_id = p_id; end if;
      return query select 'limit', null::uuid;
      return;
    end if;
  end if;
  if p_rate is not null then
    update lane l set tat = greatest(l.tat, now()) + make_interval(secs => 1 / p_rate) where l.id = p_lane
      returning greatest(v_start, l.tat - make_interval(secs => 1 / p_rate)) into v_start;
  end if;
  insert into execution (id, workflow_id, client_id, correlation_id, traceparent, business_key, priority, parent_id, parent_job,
                         input, deadline, limit_key, limit_n, schedule_id, scheduled_for, delivery_id)
  values (p_id, p_workflow, p_client, p_correlation, p_trace, p_business_key, p_priority, p_parent, p_waiting, p_input,
          v_start + make_interval(secs => p_timeout_ms / 1000.0), p_limit_key, p_limit, p_schedule, p_due, p_delivery);
  insert into job (id, pool, lane_id, state, run_at, execution_id)
  values (p_id, 3, p_lane, case when v_held then 'h' when v_start > now() then 's' else 'r' end::"char",
          case when v_start > now() then v_start else now() - make_interval(secs => 30 * p_priority) end, p_id);
  return query select 'ok', p_id;
end $$;

-- How many runs of a limit have been let go and have not ended.
create or replace function esb_under_way(p_key text) returns int language sql volatile as $$
  select count(*)::int from execution e join job j on j.id = e.id
   where e.limit_key = p_key and e.status in ('open', 'paused') and j.state <> 'h'
$$;

-- A step starts another run, fenced by its own strand. The child's id is chosen by the caller and journaled before,
-- so that a repeat after a crash starts nothing twice. Answers as esb_execute does, and 'existing' for a repeat.
create or replace function esb_spawn(p_job uuid, p_attempt int, p_id uuid, p_workflow uuid, p_lane int, p_wait boolean, p_input text,
  p_timeout_ms bigint, p_limit_key text, p_limit int, p_on_limit text, p_rate float8) returns text language plpgsql as $$
declare e execution; v_outcome text;
begin
  if p_limit_key is not null then perform pg_advisory_xact_lock(hashtextextended('limit:' || p_limit_key, 0)); end if;
  perform 1 from job where id = p_job and attempt = p_attempt and state = 'f' for update;
  if not found then raise exception 'fenced' using errcode = 'ES001'; end if;
  if exists (select from execution where id = p_id) then return 'existing'; end if;
  select x.* into e from job j join execution x on x.id = j.execution_id where j.id = p_job;
  select x.outcome into v_outcome from esb_execute(p_id, p_workflow, p_lane, e.client_id, e.correlation_id, e.traceparent,
    null, null, e.priority, p_input, p_timeout_ms, null, p_limit_key => p_limit_key, p_limit => p_limit, p_on_limit => p_on_limit,
    p_rate => p_rate, p_parent => e.id, p_waiting => case when p_wait then p_job end) x;
  return v_outcome;
end $$;
