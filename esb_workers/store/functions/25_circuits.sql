-- Takes what a process has seen of attempts at instances: how many were well, how many failed, and how many failed
-- after the last that was well. Of an instance that is well nothing is written. Reports that were made before the
-- circuit last changed say nothing about now and are dropped.
create or replace function esb_tally(p_services uuid[], p_epochs bigint[], p_ok int[], p_failed int[], p_tail int[])
returns void language sql volatile as $$
  insert into circuit_tally (service_id, ok, failed, tail)
  select r.service_id, r.ok, r.failed, r.tail
    from unnest(p_services, p_epochs, p_ok, p_failed, p_tail) r(service_id, epoch, ok, failed, tail)
    join service_state st on st.service_id = r.service_id and st.circuit = 'closed' and st.circuit_epoch = r.epoch
   where r.failed > 0
      or exists (select 1 from circuit_tally t
                  where t.service_id = r.service_id and t.failed > 0 and t.at > now() - interval '30 s')
      or (select t.tail from circuit_tally t where t.service_id = r.service_id order by t.at desc limit 1) > 0
$$;

-- What all processes together saw of instances since their circuits last changed: failures in a row, and what there
-- was in the last p_seconds. To be asked in a statement after the report's: it sees every report that has committed.
create or replace function esb_circuit_figures(p_services uuid[], p_seconds float8)
returns table (service_id uuid, in_a_row bigint, ok bigint, failed bigint) language sql stable as $$
  select st.service_id,
         coalesce(well.tail, 0) + (
           select coalesce(sum(t.failed), 0) from circuit_tally t
            where t.service_id = st.service_id and t.at > greatest(since.at, well.at)),
         recent.ok, recent.failed
    from service_state st
   cross join lateral (select coalesce(st.circuit_changed_at, '-infinity') as at) since
    left join lateral (
      select t.at, t.tail from circuit_tally t
       where t.service_id = st.service_id and t.ok > 0 and t.at > since.at order by t.at desc limit 1) well on true
   cross join lateral (
      select coalesce(sum(t.ok), 0) as ok, coalesce(sum(t.failed), 0) as failed from circuit_tally t
       where t.service_id = st.service_id and t.at > greatest(since.at, now() - make_interval(secs => p_seconds))) recent
   where st.service_id = any(p_services)
$$;

-- Drops reports that count no more: those before a change of the circuit, those of the last minute's past that a good
-- attempt has followed, and whatever is a day old.
create or replace function esb_forget_tallies() returns void language sql volatile as $$
  delete from circuit_tally t
   where t.at < now() - interval '1 day'
      or not exists (select 1 from service_state st where st.service_id = t.service_id)
      or exists (select 1 from service_state st where st.service_id = t.service_id and t.at < st.circuit_changed_at)
      or (t.at < now() - interval '1 minute'
          and exists (select 1 from circuit_tally n where n.service_id = t.service_id and n.at > t.at and n.ok > 0))
$$;
