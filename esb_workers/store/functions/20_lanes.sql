-- The lane of a pool's destination, made if it is new. The gate of a new delivery lane is computed at once:
-- a destination need not be registered when a route names it.
create or replace function esb_lane(p_pool smallint, p_name text) returns int language plpgsql as $$
declare v_id int;
begin
  select id into v_id from lane where pool = p_pool and name = p_name;
  if v_id is null then
    insert into lane (pool, name) values (p_pool, p_name) on conflict (pool, name) do nothing returning id into v_id;
    if v_id is null then
      select id into v_id from lane where pool = p_pool and name = p_name;
    elsif p_pool = 2 then
      perform esb_gate(p_name);
    end if;
  end if;
  return v_id;
end $$;

-- Opens or closes the gate of a service's delivery lane, and sets its limits, from its instances. To be called
-- in the transaction of every change of them: a gate that is computed later could miss the last change.
create or replace function esb_gate(p_name text) returns void language plpgsql as $$
declare
  v_lane int; v_closed boolean; v_since timestamptz; v_catch_up float8;
  v_active int; v_maintenance int; v_usable int; v_until timestamptz; v_limit int; v_rate float8; v_gate text; v_pull boolean;
begin
  if p_name like '|%' then return; end if;  -- no service can be called so: a route's own lane, always open
  -- Two changes of one name must not each compute from a snapshot that lacks the other.
  perform pg_advisory_xact_lock(hashtextextended('gate:' || p_name, 0));
  select count(*) filter (where s.status = 'active'), count(*) filter (where s.status = 'maintenance'),
         count(*) filter (where s.status = 'active' and (st.circuit = 'closed' or st.circuit_until <= now())),
         min(st.circuit_until) filter (where s.status = 'active'),
         -- The limit of a name is the sum over its active instances; one without a limit lifts it.
         case when bool_and(s.delivery ? 'maxConcurrency' and s.delivery->>'maxConcurrency' is not null) filter (where s.status = 'active')
              then sum((s.delivery->>'maxConcurrency')::int) filter (where s.status = 'active') end,
         case when bool_and(s.delivery ? 'ratePerSecond' and s.delivery->>'ratePerSecond' is not null) filter (where s.status = 'active')
              then sum((s.delivery->>'ratePerSecond')::float8) filter (where s.status = 'active') end,
         bool_or(s.endpoint = 'pull:'),
         case when bool_and(s.delivery ? 'catchUpPerSecond' and s.delivery->>'catchUpPerSecond' is not null) filter (where s.status = 'active')
              then sum((s.delivery->>'catchUpPerSecond')::float8) filter (where s.status = 'active') end
    into v_active, v_maintenance, v_usable, v_until, v_limit, v_rate, v_pull, v_catch_up
    from service s join service_state st on st.service_id = s.id where s.name = p_name;
  v_gate := case when v_pull and v_active > 0 then 'pull' when v_usable > 0 then null when v_active > 0 then 'circuit_open'
                 when v_maintenance > 0 then 'maintenance' else 'no_instance' end;
  v_until := case when v_gate is null then '-infinity' when v_gate = 'circuit_open' then v_until else 'infinity' end;
  -- What was held goes out at the rate that the service bears for that, until nothing of it is left (esb_caught_up).
  select id, gate is not null, catching_up_since into v_lane, v_closed, v_since from lane where pool = 2 and name = p_name;
  v_since := case when v_gate is not null or v_catch_up is null then null
                  when v_closed and exists (select 1 from job where pool = 2 and lane_id = v_lane and state = 'r') then now()
                  else v_since end;
  if v_since is not null then v_rate := least(v_rate, v_catch_up); end if;
  update lane set gate = v_gate, gate_until = v_until, hard = v_limit is not null or v_rate is not null, catching_up_since = v_since,
                  max_concurrency = v_limit, rate = v_rate,
                  burst = case when v_since is not null then 1 else greatest(1, ceil(coalesce(v_rate, 1))) end::int
   where id = v_lane
     and (gate, gate_until, max_concurrency, rate, catching_up_since) is distinct from (v_gate, v_until, v_limit, v_rate, v_since);
end $$;

-- Ends the catching up of lanes whose held rows have all gone out; how many.
create or replace function esb_caught_up() returns int language plpgsql as $$
declare v_name text; n int := 0;
begin
  for v_name in
    update lane l set catching_up_since = null
     where l.pool = 2 and l.catching_up_since is not null
       -- The first in line is the oldest, but for priorities; behind one that is under way there may be more of its key.
       and coalesce((select j.created_at from job j where j.pool = 2 and j.lane_id = l.id and j.state = 'r'
                      order by j.run_at limit 1) > l.catching_up_since, true)
       and not exists (select 1 from job j where j.lane_id = l.id and j.state = 'f' and j.created_at <= l.catching_up_since)
    returning l.name
  loop
    perform esb_gate(v_name);
    n := n + 1;
  end loop;
  return n;
end $$;

-- A registration has changed: caches that were filled before are stale.
create or replace function esb_changed(p_topic text) returns void language sql as $$
  update revision set n = n + 1 where topic = p_topic
$$;
