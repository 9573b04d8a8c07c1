-- A place at a service with declared limits, for a call that is made outside of the service's own lane: a step of a
-- run, or a delivery that chooses its destination late. It counts as one in flight in that lane until it is given back,
-- or for p_seconds if whoever has it dies. Answers its id (0: there are no limits of which it must be kept), or no id
-- and after how many milliseconds to ask again.
create or replace function esb_permit(p_name text, p_seconds float8) returns table (id bigint, retry_ms int)
language plpgsql volatile as $$
declare l lane; v_lane int; v_tat timestamptz; v_now timestamptz;
begin
  v_lane := esb_lane(2::smallint, p_name);  -- made here for a service that no delivery has gone to yet
  -- Waits for whoever is just counting; what follows are new statements, which see what that one has committed.
  select n.* into l from lane n where n.id = v_lane for no key update;
  if not l.hard then
    return query select 0::bigint, null::int;
    return;
  end if;
  v_now := clock_timestamp();
  if l.max_concurrency is not null then
    delete from permit p where p.lane_id = l.id and p.until <= v_now;
    if (select count(*) from job f where f.lane_id = l.id and f.state = 'f')
       + (select count(*) from permit p where p.lane_id = l.id) >= l.max_concurrency then
      return query select null::bigint, 50;
      return;
    end if;
  end if;
  if l.rate is not null then
    v_tat := greatest(l.tat, v_now - make_interval(secs => l.burst / l.rate)) + make_interval(secs => 1 / l.rate);
    if v_tat > v_now + interval '1 ms' then
      return query select null::bigint, ceil(extract(epoch from v_tat - v_now) * 1000)::int;
      return;
    end if;
    update lane set tat = v_tat where lane.id = l.id;
  end if;
  if l.max_concurrency is not null then
    return query insert into permit as p (lane_id, until) values (l.id, v_now + make_interval(secs => p_seconds)) returning p.id, null::int;
  else
    return query select 0::bigint, null::int;
  end if;
end $$;
