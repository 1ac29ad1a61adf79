-- The role of viewers and its rights; run at every start after the migrations, because roles belong to the server and
-- not to the database: one that was restored elsewhere has none. Other databases of the server may do so meanwhile.
do $$
declare
    name text;
begin
    begin
        if not exists (select from pg_roles where rolname = 'meterway_viewer') then
            create role meterway_viewer nologin;
        end if;
    exception when duplicate_object or unique_violation then
        null;
    end;
    begin
        set local role meterway_viewer;
    exception when insufficient_privilege then
        execute format('grant meterway_viewer to %I', current_user);
    end;
    reset role;
    for name in
        select c.oid::regclass::text from pg_class c
        where c.relnamespace = current_schema()::regnamespace and not c.relispartition
        and ((c.relkind in ('r', 'p') and c.relrowsecurity) or c.relname in ('viewer_household', 'viewer_meter', 'concentrator_tenant'))
        and not has_table_privilege('meterway_viewer', c.oid, 'select')
    loop
        execute format('grant select on %s to meterway_viewer', name);
    end loop;
    if not has_schema_privilege('meterway_viewer', current_schema(), 'usage') then
        execute format('grant usage on schema %I to meterway_viewer', current_schema());
    end if;
    -- What an operator of a tenant changes of its meters.
    foreach name in array array['claimed', 'name', 'household_key', 'signing_key', 'signature_required'] loop
        if not has_column_privilege('meterway_viewer', 'meter', name, 'update') then
            execute format('grant update (%I) on meter to meterway_viewer', name);
        end if;
    end loop;
exception when insufficient_privilege then
    raise insufficient_privilege using message = format(
        'the database user %I may not make the role meterway_viewer; as an administrator run: '
        'create role meterway_viewer nologin; grant meterway_viewer to %I;', current_user, current_user);
end $$;
