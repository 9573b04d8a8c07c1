-- The job of a listener's n-th process. Made of both, so that there is one of each whoever makes it.
create or replace function esb_listener_job(p_listener uuid, p_n int) returns uuid language sql immutable as $$
  select md5(p_listener::text || ':' || p_n)::uuid
$$;

-- Has a listener's jobs be what its row says: one for each process if it is enabled, none else. What is in flight is
-- left to the consumer, which sees that its row has changed. To be called in the transaction that changes the row.
create or replace function esb_listen(p_listener uuid, p_processes int, p_enabled boolean) returns void language plpgsql volatile as $$
begin
  delete from job j where j.pool = 5 and j.state <> 'f' and j.lane_id = esb_lane(5::smallint, p_listener::text)
     and (not p_enabled or (j.cursor->>'n')::int >= p_processes);
  if p_enabled then
    insert into job (id, pool, lane_id, state, cursor)
    select esb_listener_job(p_listener, n), 5, esb_lane(5::smallint, p_listener::text), 'r',
           jsonb_build_object('listener', p_listener, 'n', n)
      from generate_series(0, p_processes - 1) n
    on conflict (id) do update set state = 'r', run_at = now(), losses = 0 where job.state in ('s', 'r', 'b');
  end if;
end $$;

-- A consumer has ended: its job is there for the next one, after p_delay, or goes if the listener wants it no more. The row is read
-- under a lock, so that a change that is being written is waited for.
create or replace function esb_listener_release(p_worker bigint, p_job uuid, p_attempt int, p_listener uuid, p_n int, p_delay interval) returns void
language plpgsql volatile as $$
declare v_wanted boolean;
begin
  select l.enabled and p_n < l.processes into v_wanted from listener l where l.id = p_listener for share;
  if coalesce(v_wanted, false) then
    update job set state = case when p_delay > '0' then 's' else 'r' end::"char", worker_id = null, run_at = now() + p_delay
     where id = p_job and attempt = p_attempt and worker_id = p_worker and state = 'f';
  else
    delete from job where id = p_job and attempt = p_attempt and worker_id = p_worker and state = 'f';
  end if;
end $$;
