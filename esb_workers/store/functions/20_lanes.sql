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
         bool_or(s.endpoint = 'pull:')
    into v_active, v_maintenance, v_usable, v_until, v_limit, v_rate, v_pull
    from service s join service_state st on st.service_id = s.id where s.name = p_name;
  v_gate := case when v_pull and v_active > 0 then 'pull' when v_usable > 0 then null when v_active > 0 then 'circuit_open'
                 when v_maintenance > 0 then 'maintenance' else 'no_instance' end;
  v_until := case when v_gate is null then '-infinity' when v_gate = 'circuit_open' then v_until else 'infinity' end;
  update lane set gate = v_gate, gate_until = v_until, hard = v_limit is not null or v_rate is not null,
                  max_concurrency = v_limit, rate = v_rate, burst = greatest(1, ceil(coalesce(v_rate, 1)))::int
   where pool = 2 and name = p_name
     and (gate, gate_until, max_concurrency, rate) is distinct from (v_gate, v_until, v_limit, v_rate);
end $$;

-- A registration has changed: caches that were filled before are stale.
create or replace function esb_changed(p_topic text) returns void language sql as $$
  update revision set n = n + 1 where topic = p_topic
$$;
