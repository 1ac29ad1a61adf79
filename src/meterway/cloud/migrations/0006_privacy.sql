-- Privacy: consents, erasures with their proofs, how long readings are kept, and what research was answered.

create table consent (
    consent_key   integer generated always as identity primary key,
    account_key   integer not null references account on delete cascade,
    household_key integer not null references household on delete cascade,
    purpose       text not null check (purpose in ('research')),
    property_ids  text[] not null,
    -- Cells that are shorter are not made with it.
    step_s        integer not null check (step_s > 0),
    -- Of readings of which time; null: no bound.
    from_time     timestamptz,
    until_time    timestamptz,
    given_time    timestamptz not null,
    expires_time  timestamptz not null,
    revoked_time  timestamptz
);
create index consent_of_household on consent (household_key, account_key);
create index consent_of_account on consent (account_key);

create table erasure_request (
    account_key    integer primary key references account on delete cascade,
    requested_time timestamptz not null
);

-- What was erased, proven: no name and no meter id, only digests. Rows are never changed once they are finished.
create table erasure (
    erasure_key     integer generated always as identity primary key,
    tenant_key      integer,
    subject_kind    text not null check (subject_kind in ('account', 'household', 'meter')),
    -- SHA-256 of account/[login], household/[number] or meter/[meterId].
    subject_digest  bytea not null,
    reason          text not null,
    by_account      integer,
    requested_time  timestamptz not null,
    -- How many rows of which table.
    counts          jsonb not null default '{}',
    finished_time   timestamptz,
    chain_number    integer unique,
    previous_digest bytea,
    digest          bytea unique
);

-- Readings of this meter and time are not stored again, whoever sends them.
create table erased_span (
    erased_span_key integer generated always as identity primary key,
    erasure_key     integer not null references erasure,
    -- SHA-256 of the meter id.
    meter_digest    bytea not null,
    from_time       timestamptz not null,
    until_time      timestamptz not null,
    -- Whether the meter itself is forgotten too.
    is_forgotten    boolean not null,
    is_done         boolean not null default false
);
create index erased_span_of_meter on erased_span (meter_digest);
create index erased_span_of_erasure on erased_span (erasure_key);

-- For how many days readings are kept; '*' stands for whole readings. What has no row is kept for ever.
create table retention (
    tenant_key  integer not null references tenant,
    property_id text not null,
    keep_days   integer not null check (keep_days > 0),
    primary key (tenant_key, property_id)
);

-- Which households were in an answer about a day, so that two answers do not tell the one that differs.
create table research_day (
    property_id    text not null,
    day            date not null,
    household_keys integer[] not null,
    unique (property_id, day, household_keys)
);

alter table consent enable row level security;
create policy seen on consent for select using (
    account_key = (select viewer_account())
    or account_key in (select account_key from account where tenant_key = (select viewer_tenant())));
alter table erasure_request enable row level security;
create policy seen on erasure_request for select using (
    account_key = (select viewer_account())
    or account_key in (select account_key from account where tenant_key = (select viewer_tenant())));
alter table erasure enable row level security;
create policy seen on erasure for select using (tenant_key = (select viewer_tenant()));
alter table retention enable row level security;
create policy seen on retention for select using (tenant_key = (select viewer_tenant()));
