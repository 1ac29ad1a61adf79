-- Devices: who may log in at the broker, the codes by which they enrol, and what the broker refused to them.

create table device (
    device_key     integer generated always as identity primary key,
    tenant_key     integer not null references tenant,
    kind           text not null check (kind in ('adapter', 'concentrator')),
    device_id      text not null,
    -- The meters for which an adapter publishes.
    meter_ids      text[] not null default '{}',
    -- A concentrator beside the cloud: reads what every adapter publishes on the cloud's own broker.
    collects       boolean not null default false,
    -- SHA-256 of the password, which is 256 random bits; null: not enrolled, or revoked.
    secret_digest  bytea,
    created_time   timestamptz not null default now(),
    enrolled_time  timestamptz,
    last_seen_time timestamptz,
    revoked_time   timestamptz,
    unique (kind, device_id),
    check (kind = 'concentrator' or not collects)
);
create index device_of_tenant on device (tenant_key);
create index device_of_meter on device using gin (meter_ids);

-- The last code of each device; only its digest is kept.
create table enrolment_code (
    device_key   integer primary key references device on delete cascade,
    digest       bytea not null unique,
    expires_time timestamptz not null,
    used_time    timestamptz
);

create table refusal (
    device_key    integer not null references device on delete cascade,
    refused_kind  text not null,
    topic         text not null,
    detail        text not null,
    first_time    timestamptz not null,
    last_time     timestamptz not null,
    refused_count bigint not null,
    primary key (device_key, refused_kind, topic, detail)
);

-- Whoever changes a device, the processes that guard a broker hear of it.
create function tell_device_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('device_changed', coalesce(new.device_key, old.device_key)::text);
    return null;
end
$$;
create trigger device_changed
    after insert or delete or update of meter_ids, collects, secret_digest, revoked_time on device
    for each row execute function tell_device_changed();

-- As in 0003: a tenant's staff see its own.
alter table device enable row level security;
create policy seen on device for select using (tenant_key = (select viewer_tenant()));
alter table enrolment_code enable row level security;
create policy seen on enrolment_code for select using (
    device_key in (select device_key from device where tenant_key = (select viewer_tenant())));
alter table refusal enable row level security;
create policy seen on refusal for select using (
    device_key in (select device_key from device where tenant_key = (select viewer_tenant())));
