-- The front door: accepts messages in one statement. A row says by what it was decided: `known`, topics of `revision`
-- and the number of each (the sender's grant by `clients`, the payload by `message_types` …). If one of them has moved
-- the row is 'stale': nothing of it is stored, its caller looks again, and its neighbours are not held up by it.
-- A row with a scope is unique by (scope, ext): a repeat with the same hash answers the first message's id, with another
-- one 'conflict'. A row with an ordering key is queued; the caller promotes its key after the commit.
-- A row that was routed already (`to`: its deliveries, as esb_routed takes them) gets these in place of a job of the
-- routing pool, and is `direct`. If what it was `matched` with has moved meanwhile it is routed by the pool; or it is
-- 'moved', and not stored, where its caller would rather match it `again`. p_warnings is what was found in payloads of
-- rows that are accepted all the same. The last seven are what rows say that do not say it themselves, as all of a batch
-- do: what is said once is read once. p_n: how many rows there are.
drop function if exists esb_accept(json, json, jsonb);   -- it took less
create or replace function esb_accept(p_rows json, p_warnings json default null, p_known jsonb default null, p_n int default null,
  p_lane int default null, p_client uuid default null, p_source text default null, p_type text default null,
  p_corr text default null, p_headers text default null, p_prio smallint default 5::smallint)
returns table (i int, outcome text, id uuid, direct boolean) language plpgsql as $$
declare v_inserted int; v_now jsonb := (select jsonb_object_agg(v.topic, v.n) from revision v); v_fresh boolean := v_now @> p_known;
begin
  return query
  with r as materialized (
    select r.*, r."to" is not null and coalesce(v_now @> r.matched::jsonb, false) as direct
      from json_to_recordset(p_rows) as r(i int, id uuid, lane int, client uuid, ext text, source text, type text,
        corr text, okey text, prio smallint, at timestamptz, exp timestamptz, reply text, trace text, headers text,
        payload text, scope text, hash text, replay_of uuid, known json, matched json, again boolean, "to" json)
     where coalesce(v_now @> r.known::jsonb, v_fresh, true) and coalesce(not r.again or v_now @> r.matched::jsonb, true)),
  k as (
    insert into idempotency as d (scope, key, hash, resource_id, status, expires_at)
    select distinct on (r.scope, r.ext) r.scope, r.ext, decode(r.hash, 'hex'), r.id, 202, now() + interval '30 days'
      from r where r.scope is not null order by r.scope, r.ext, r.i
    on conflict (scope, key) do update set hash = excluded.hash, resource_id = excluded.resource_id, expires_at = excluded.expires_at
      where d.expires_at < now()
    returning d.resource_id),
  fresh as materialized (select * from r where r.scope is null or r.id in (select k.resource_id from k)),
  m as (
    insert into message (id, client_id, external_id, source, type, correlation_id, ordering_key, priority, deliver_at,
                         expires_at, reply_to, traceparent, headers, payload, replay_of)
    select f.id, coalesce(f.client, p_client), f.ext, coalesce(f.source, p_source), coalesce(f.type, p_type), coalesce(f.corr, p_corr),
           f.okey, coalesce(f.prio, p_prio), f.at, f.exp, f.reply, f.trace, coalesce(f.headers, p_headers), f.payload, f.replay_of from fresh f),
  j as (
    insert into job (id, pool, lane_id, okey, state, run_at, message_id, expires_at)
    select f.id, 1, coalesce(f.lane, p_lane), f.okey, case when f.okey is not null then 'q' when f.at > now() then 's' else 'r' end::"char",
           case when f.at > now() then f.at else now() - make_interval(secs => 30 * coalesce(f.prio, p_prio)) end, f.id, f.exp
      from fresh f where not f.direct order by f.i),
  d as (
    insert into job (id, pool, lane_id, route_id, run_at, message_id, cursor)
    select d.id, 2, d.lane, d.route, now() - make_interval(secs => 30 * d.prio), f.id, d.cursor::jsonb
      from fresh f, rows from (json_to_recordset(f."to") as (id uuid, lane int, route uuid, prio int, cursor json))
           with ordinality as d(id, lane, route, prio, cursor, ord)
     where f.direct order by f.i, d.ord)
  select f.i, 'accepted', f.id, f.direct from fresh f;
  get diagnostics v_inserted = row_count;
  if p_warnings is not null then
    insert into message_warning (message_id, type, version, faults)
    select w.id, w.type, w.version, w.faults from json_to_recordset(p_warnings) as w(id uuid, type text, version int, faults jsonb)
     where exists (select 1 from message m where m.id = w.id);   -- not of a repeat, which is not stored
  end if;
  if v_inserted < coalesce(p_n, json_array_length(p_rows)) then
    return query
    select r.i, case when coalesce(v_now @> r.known::jsonb, v_fresh) then 'moved' else 'stale' end, r.id, false
      from json_to_recordset(p_rows) as r(i int, id uuid, known json, matched json, again boolean)
     where not coalesce(v_now @> r.known::jsonb, v_fresh) or (r.again and not v_now @> r.matched::jsonb);
    -- A statement of its own, so a snapshot of its own: it sees the twin whose commit the insert above waited for.
    return query
    select r.i, case when d.hash = decode(r.hash, 'hex') then 'duplicate' else 'conflict' end, d.resource_id, false
      from json_to_recordset(p_rows) as r(i int, id uuid, ext text, scope text, hash text, known json, matched json, again boolean)
      join idempotency d on d.scope = r.scope and d.key = r.ext
     where d.resource_id <> r.id and coalesce(v_now @> r.known::jsonb, v_fresh, true) and coalesce(not r.again or v_now @> r.matched::jsonb, true);
  end if;
end $$;
