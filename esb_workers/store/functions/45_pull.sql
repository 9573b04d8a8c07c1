-- Leases up to p_max ready deliveries to whoever pulls for a service: a claim without a worker process (worker 0),
-- held until p_lease runs out, when the sweep gives it back as any lost lease. The lane's gate keeps the delivery pool
-- away from it; any other gate (maintenance, no instance) keeps pullers away as well.
create or replace function esb_pull(p_name text, p_max int, p_v smallint, p_lease interval)
returns table (id uuid, lane_id int, attempt int, tries smallint, message_id uuid, route_id uuid, okey text, cursor jsonb,
               execution_id uuid, control "char", inbox int, created_at timestamptz, rev bigint, losses smallint, lease_until timestamptz)
language plpgsql volatile set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare v_lane lane; v_room int := p_max; v_ids uuid[];
begin
  select * into v_lane from lane l where l.pool = 2 and l.name = p_name;
  if not found or v_lane.gate is distinct from 'pull' then return; end if;
  if v_lane.max_concurrency is not null then
    -- Counted in a statement after the lock's: it sees what earlier holders of the lock have committed.
    perform 1 from lane l where l.id = v_lane.id for no key update;
    v_room := least(p_max, v_lane.max_concurrency - (select count(*) from job f where f.lane_id = v_lane.id and f.state = 'f')::int);
  end if;
  if v_room <= 0 then return; end if;
  v_ids := array(select j.id from job j where j.pool = 2 and j.lane_id = v_lane.id and j.state = 'r' and j.run_at <= now() and j.v <= p_v
                  order by j.run_at, j.seq limit v_room for update skip locked);
  return query
  with taken as (
    update job j set state = 'f', attempt = j.attempt + 1, worker_id = 0, started_at = now(), lease_until = now() + p_lease
     where j.id = any(v_ids) returning j.*)
  select t.id, t.lane_id, t.attempt, t.tries, t.message_id, t.route_id, t.okey, t.cursor, t.execution_id, t.control, t.inbox,
         t.created_at, (select sum(n) from revision)::bigint, t.losses, t.lease_until
    from taken t order by array_position(v_ids, t.id);
end $$;

-- Those leases of a service's deliveries that still stand, with how long each has been held, milliseconds.
create or replace function esb_pulled(p_name text, p_ids uuid[], p_attempts int[])
returns table (id uuid, lane_id int, attempt int, tries smallint, message_id uuid, route_id uuid, okey text, cursor jsonb,
               execution_id uuid, control "char", inbox int, created_at timestamptz, rev bigint, losses smallint, held_ms int)
language sql stable as $$
  select j.id, j.lane_id, j.attempt, j.tries, j.message_id, j.route_id, j.okey, j.cursor, j.execution_id, j.control, j.inbox,
         j.created_at, (select sum(n) from revision)::bigint, j.losses, (extract(epoch from now() - j.started_at) * 1000)::int
    from unnest(p_ids, p_attempts) x(id, attempt) join job j on j.id = x.id and j.attempt = x.attempt
    join lane l on l.id = j.lane_id and l.pool = 2 and l.name = p_name
   where j.state = 'f' and j.worker_id = 0
$$;

-- Lengthens leases that still stand; answers the deliveries they are of.
create or replace function esb_pull_longer(p_name text, p_ids uuid[], p_attempts int[], p_lease interval)
returns table (id uuid, attempt int) language sql volatile as $$
  update job j set lease_until = now() + p_lease
    from unnest(p_ids, p_attempts) x(id, attempt), lane l
   where j.id = x.id and j.attempt = x.attempt and l.id = j.lane_id and l.pool = 2 and l.name = p_name
     and j.state = 'f' and j.worker_id = 0
  returning j.id, j.attempt
$$;
