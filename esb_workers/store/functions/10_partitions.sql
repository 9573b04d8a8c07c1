-- The least UUIDv7 of a moment: its first 48 bits are Unix milliseconds.
create or replace function esb_uuid_at(p_at timestamptz) returns uuid language sql stable as $$
  select (lpad(to_hex((extract(epoch from p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- A UUIDv7 of now, for rows that statements make; others get theirs from the code.
create or replace function esb_new_id() returns uuid language sql volatile as $$
  select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(r, 1, 3)
          || '8' || substr(r, 4, 15))::uuid from (select replace(gen_random_uuid()::text, '-', '') r) x
$$;

-- Makes the weekly partitions of all history from this week to p_ahead weeks on, and a default one that should
-- stay empty: it exists because a missing partition would refuse an accept. Returns how many it made.
-- Of JSON nothing is sampled: no query asks for it, and sorting samples of it was a tenth of PostgreSQL's work under load.
create or replace function esb_partitions(p_ahead int) returns int language plpgsql as $$
declare
  v_parent text; v_week timestamptz; v_name text; v_new text[] := '{}'; v_sql text; v_made int := 0;
begin
  perform pg_advisory_xact_lock(4711002);   -- several schedulers may tick at once
  foreach v_parent in array array['message', 'message_end', 'message_warning', 'form', 'delivery', 'attempt', 'event', 'health_check'] loop
    for v_week in select generate_series(date_trunc('week', now(), 'UTC'),
                                         date_trunc('week', now(), 'UTC') + make_interval(weeks => p_ahead), '1 week') loop
      v_name := v_parent || '_' || to_char(v_week at time zone 'UTC', 'YYYYMMDD');
      if to_regclass(v_name) is null then
        execute format('create table %I partition of %I for values from (%L) to (%L)', v_name, v_parent,
                       esb_uuid_at(v_week), esb_uuid_at(v_week + interval '1 week'));
        v_made := v_made + 1;
        v_new := v_new || v_name;
      end if;
    end loop;
    if to_regclass(v_parent || '_default') is null then
      execute format('create table %I partition of %I default', v_parent || '_default', v_parent);
      v_new := v_new || (v_parent || '_default');
    end if;
  end loop;
  for v_sql in
    select format('alter table %s ', a.attrelid::regclass) || string_agg(format('alter column %I set statistics 0', a.attname), ', ')
      from unnest(v_new) t(name) join pg_attribute a on a.attrelid = t.name::regclass
     where a.attnum > 0 and (a.atttypid = 'jsonb'::regtype or a.attname in ('payload', 'headers', 'data')) group by a.attrelid loop
    execute v_sql;
  end loop;
  return v_made;
end $$;
