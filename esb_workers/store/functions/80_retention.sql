-- Drops the partitions of these tables of history that ended more than p_days ago. One that an unfinished row still points into
-- is kept until that has ended: open work outlives its retention. Answers the names dropped.
drop function if exists esb_retire(float8);
create or replace function esb_retire(p_parents text[], p_days float8) returns setof text language plpgsql as $$
declare v_part record; v_bound uuid;
begin
  perform pg_advisory_xact_lock(4711002);
  for v_part in
    select c.relname name, pg_get_expr(c.relpartbound, c.oid) bound from pg_inherits i
      join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
     where p.relname = any(p_parents) and p.relnamespace = 'public'::regnamespace and pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
  loop
    v_bound := (regexp_match(v_part.bound, 'TO \(''([0-9a-f-]+)''\)'))[1]::uuid;
    continue when v_bound > esb_uuid_at(now() - make_interval(secs => p_days * 86400));
    continue when exists (select 1 from job where id < v_bound and pool not in (4, 5))
               or exists (select 1 from job where message_id < v_bound)
               or exists (select 1 from job where execution_id < v_bound);
    execute format('drop table %I', v_part.name);
    return next v_part.name;
  end loop;
end $$;

-- Deletes what is kept beside history and belongs to it: dead letters, replays with their items, refusals.
create or replace function esb_retire_letters(p_days float8) returns void language sql volatile as $$
  delete from dead_letter where at < now() - make_interval(secs => p_days * 86400);
  delete from replay where finished_at < now() - make_interval(secs => p_days * 86400);
  delete from ingress_refusal where at < now() - make_interval(secs => p_days * 86400);
  delete from parked_message where at < now() - make_interval(secs => p_days * 86400);
  delete from quota where starts_at < now() - interval '2 days';
$$;

-- Deletes a chunk of the audit trail that is older than p_days; how many.
create or replace function esb_retire_audit(p_days float8, p_limit int) returns int language sql volatile as $$
  with old as (
    delete from audit where id = any(array(
      select id from audit where id < esb_uuid_at(now() - make_interval(secs => p_days * 86400)) order by id limit p_limit))
    returning 1)
  select count(*)::int from old
$$;

-- Deletes a chunk of executions that ended more than p_days ago; how many.
create or replace function esb_retire_executions(p_days float8, p_limit int) returns int language sql volatile as $$
  with old as materialized (
    select id from execution where finished_at < now() - make_interval(secs => p_days * 86400) limit p_limit for update skip locked),
  s as (delete from signal where execution_id in (select id from old)),
  c as (delete from callback where execution_id in (select id from old)),
  p as (delete from snapshot where execution_id in (select id from old)),
  e as (delete from execution where id in (select id from old) returning 1)
  select count(*)::int from e
$$;
