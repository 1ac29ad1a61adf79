-- Tenants, people and what they may see.

create table tenant (
    tenant_key   integer generated always as identity primary key,
    tenant_id    text not null unique,
    name         text not null,
    created_time timestamptz not null default now()
);
-- Everything belongs to the first tenant until there is a second one.
insert into tenant (tenant_id, name) values ('main', 'Main');

-- A household is what privacy protects: the meters of one flat or house.
create table household (
    household_key integer generated always as identity primary key,
    tenant_key    integer not null references tenant,
    name          text not null,
    created_time  timestamptz not null default now(),
    unique (tenant_key, name),
    unique (household_key, tenant_key)
);

alter table meter
    add column tenant_key    integer not null default 1 references tenant,
    add column household_key integer,
    add foreign key (household_key, tenant_key) references household (household_key, tenant_key);
alter table concentrator
    add column tenant_key integer not null default 1 references tenant;
create index meter_of_tenant on meter (tenant_key);
create index meter_of_household on meter (household_key) where household_key is not null;

create table account (
    account_key   integer generated always as identity primary key,
    -- Null: of all tenants (the operator of the installation).
    tenant_key    integer references tenant,
    login         text not null unique,
    name          text not null,
    role          text not null check (role in ('operator', 'auditor', 'member', 'researcher')),
    oidc_issuer   text,
    oidc_subject  text,
    disabled      boolean not null default false,
    created_time  timestamptz not null default now(),
    last_sign_in_time timestamptz,
    unique (oidc_issuer, oidc_subject)
);

-- Of its own, so that who may see an account does not see this. Argon2; an account without one signs in by OIDC, or
-- sets one by a link.
create table password (
    account_key   integer primary key references account on delete cascade,
    password_hash text not null
);

-- Who lives in a household, from when to when: a member sees its meters in that time only.
create table resident (
    account_key   integer not null references account on delete cascade,
    household_key integer not null references household on delete cascade,
    from_time     timestamptz not null,
    until_time    timestamptz,
    primary key (account_key, household_key, from_time)
);
create index resident_of_household on resident (household_key);

-- One-time links: the first operator, invitations, forgotten passwords. Only a digest is kept, here and below.
create table sign_in_link (
    digest       bytea primary key,
    account_key  integer not null references account on delete cascade,
    expires_time timestamptz not null
);

create table session (
    digest         bytea primary key,
    account_key    integer not null references account on delete cascade,
    created_time   timestamptz not null default now(),
    last_used_time timestamptz not null default now(),
    expires_time   timestamptz not null
);

create table api_token (
    api_token_key  integer generated always as identity primary key,
    digest         bytea not null unique,
    account_key    integer not null references account on delete cascade,
    name           text not null,
    scopes         text[] not null,
    created_time   timestamptz not null default now(),
    expires_time   timestamptz not null,
    last_used_time timestamptz,
    revoked_time   timestamptz
);

-- Who read, changed, exported, deleted. Only erasures change what is there; rows go when they are older than is kept.
create table audit (
    audit_key   bigint generated always as identity primary key,
    audit_time  timestamptz not null default clock_timestamp(),
    tenant_key  integer,
    account_key integer,
    -- The login, kept as text so that the entry outlives the account.
    actor       text not null,
    action      text not null,
    subject     text not null,
    detail      jsonb
);
create index audit_newest on audit (audit_time desc, audit_key desc);
create index audit_of_subject on audit (subject, audit_time desc);

-- What a viewer sees who is not an operator or auditor of all tenants. Their queries run as the role meterway_viewer
-- (made in viewer.sql, which also grants it what has row-level security), with three settings of the transaction:
-- meterway.tenant and meterway.account (keys, or empty) and meterway.role. Who owns the tables is not limited.

create function viewer_tenant() returns integer stable language sql as $$
    select case when current_setting('meterway.role', true) in ('operator', 'auditor')
                then nullif(current_setting('meterway.tenant', true), '')::integer end
$$;
create function viewer_account() returns integer stable language sql as $$
    select case when current_setting('meterway.role', true) = 'member'
                then nullif(current_setting('meterway.account', true), '')::integer end
$$;

-- The households in which the viewer lives today, and of which time. Views ask with the rights of their owner, so that
-- the policies below need not ask each other.
create view viewer_household as
select household_key, from_time, coalesce(until_time, 'infinity') as until_time
from resident
where account_key = (select viewer_account()) and from_time <= now() and coalesce(until_time, 'infinity') > now();

-- The meters of the viewer, and of which time: all of it for the tenant's staff, their time there for residents.
create view viewer_meter as
select meter_key, meter_id, '-infinity'::timestamptz as from_time, 'infinity'::timestamptz as until_time
from meter where tenant_key = (select viewer_tenant())
union all
select meter_key, meter_id, from_time, until_time from viewer_household join meter using (household_key);

create view concentrator_tenant as select concentrator_id, tenant_key from concentrator;

alter table tenant enable row level security;
create policy seen on tenant for select using (tenant_key = (select viewer_tenant()));

alter table household enable row level security;
create policy seen on household for select using (
    tenant_key = (select viewer_tenant())
    or household_key = any (array(select household_key from viewer_household)));

alter table account enable row level security;
create policy seen on account for select using (
    tenant_key = (select viewer_tenant()) or account_key = (select viewer_account()));

alter table resident enable row level security;
create policy seen on resident for select using (
    account_key = (select viewer_account())
    or account_key in (select account_key from account where tenant_key = (select viewer_tenant())));

alter table audit enable row level security;
create policy seen on audit for select using (tenant_key = (select viewer_tenant()));

-- The row of a meter carries its newest reading, so it appears to a member with the first one of their time.
alter table meter enable row level security;
create policy seen on meter for select using (
    tenant_key = (select viewer_tenant())
    or (household_key = any (array(select household_key from viewer_household)) and exists (
        select from viewer_household v where v.household_key = meter.household_key
        and (last_reading_time is null or (last_reading_time >= v.from_time and last_reading_time < v.until_time)))));
create policy changed on meter for update
using (tenant_key = (select viewer_tenant()) and current_setting('meterway.role', true) = 'operator')
with check (tenant_key = (select viewer_tenant()));

alter table reading enable row level security;
create policy seen on reading for select using (exists (
    select from viewer_meter v where v.meter_key = reading.meter_key
    and reading_time >= v.from_time and reading_time < v.until_time));

alter table meter_day enable row level security;
create policy seen on meter_day for select using (exists (
    select from viewer_meter v where v.meter_key = meter_day.meter_key
    and day >= (v.from_time at time zone 'UTC')::date and day <= (v.until_time at time zone 'UTC')::date));

alter table conflict enable row level security;
create policy seen on conflict for select using (exists (
    select from viewer_meter v where v.meter_id = conflict.meter_id
    and reading_time >= v.from_time and reading_time < v.until_time));

alter table concentrator enable row level security;
create policy seen on concentrator for select using (tenant_key = (select viewer_tenant()));

-- What a concentrator sent belongs to its tenant, whatever meter it names. A concentrator that nobody assigned is the
-- first tenant's.
alter table fault enable row level security;
create policy seen on fault for select using (
    (select viewer_tenant()) = coalesce(
        (select tenant_key from concentrator_tenant c where c.concentrator_id = fault.concentrator_id), 1)
    or ((select viewer_account()) is not null and exists (
        select from viewer_meter v where v.meter_id = fault.meter_id
        and fault_time >= v.from_time and fault_time < v.until_time)));

alter table quarantine enable row level security;
create policy seen on quarantine for select using (
    (select viewer_tenant()) = coalesce(
        (select tenant_key from concentrator_tenant c where c.concentrator_id = split_part(topic, '/', 2)), 1));

alter table state_change enable row level security;
create policy seen on state_change for select using (
    exists (select from viewer_meter v where v.meter_id = subject
            and change_time >= v.from_time and change_time < v.until_time)
    or exists (select from concentrator_tenant c where subject = 'concentrator/' || c.concentrator_id
               and c.tenant_key = (select viewer_tenant())));

-- What says nothing of anybody.
alter table property_set enable row level security;
create policy seen on property_set for select using (true);
alter table ledger_backlog enable row level security;
create policy seen on ledger_backlog for select using (true);
