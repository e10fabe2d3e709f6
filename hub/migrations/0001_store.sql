-- The store of several nodes. Times are milliseconds since 1970-01-01T00:00:00Z on this server's clock, so that all
-- nodes judge by one. Texts are ordered by their bytes, as every other store orders them. Token sets arrive sealed.

CREATE FUNCTION lockstep.now_ms() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- One row: the store's lifetime (its bits, read as signed), and when it was last seen to take writes.
CREATE TABLE lockstep.meta (
    is_one    boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    epoch     bigint  NOT NULL,
    probed_at bigint  NOT NULL DEFAULT 0
);

-- The commit number, in parts: each connection adds to a part of its own, so that commits do not wait for each other.
-- It is the sum of all revisions of all grants, exactly: a fail-over that lost one commit is told by it.
CREATE TABLE lockstep.marks (
    part    integer PRIMARY KEY,
    commits bigint  NOT NULL
) WITH (fillfactor = 20);
INSERT INTO lockstep.marks SELECT part, 0 FROM generate_series(0, 63) AS part;

CREATE TABLE lockstep.nodes (
    name        text COLLATE "C" PRIMARY KEY,
    incarnation bigint NOT NULL
);

-- Sealed values that all nodes share.
CREATE TABLE lockstep.shared (
    name   text COLLATE "C" PRIMARY KEY,
    key_id bigint NOT NULL,
    sealed bytea  NOT NULL
);

CREATE TABLE lockstep.users (
    id      text COLLATE "C" PRIMARY KEY,
    seq     bigint  NOT NULL CHECK (seq >= 0),
    deleted boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);

CREATE TABLE lockstep.grants (
    user_id           text COLLATE "C" NOT NULL REFERENCES lockstep.users,
    name              text COLLATE "C" NOT NULL,
    provider          text COLLATE "C" NOT NULL GENERATED ALWAYS AS (split_part(name, '/', 1)) STORED,
    revision          bigint  NOT NULL,
    version           bigint  NOT NULL CHECK (version > 0),
    seq               bigint  NOT NULL,
    health            text    NOT NULL CHECK (health IN ('ok', 'suspect', 'reauth_required', 'deleted')),
    reason            text,
    retry_at          bigint,
    tokens_key        bigint,
    tokens            bytea,
    expires_at        bigint,
    refreshed_at      bigint  NOT NULL,
    cause             text    NOT NULL CHECK (cause IN ('refresh', 'login')),
    due_at            bigint,
    -- When it is to be redeemed if nobody uses it by the time it is due.
    wake_at           bigint,
    -- Due but not in use: looked at again at wake_at, unless it is used or changes before.
    asleep            boolean NOT NULL DEFAULT false,
    -- Due but unused: not looked at again, until it is used or changes.
    parked            boolean NOT NULL DEFAULT false,
    look_at           bigint  GENERATED ALWAYS AS (CASE WHEN asleep AND due_at IS NOT NULL THEN coalesce(wake_at, due_at)
                                                   ELSE due_at END) STORED,
    claim_lease       uuid,
    claim_node        text COLLATE "C",
    claim_incarnation bigint,
    claim_purpose     text CHECK (claim_purpose IN ('redeem', 'grace', 'last_try', 'alternate')),
    claim_taken_at    bigint,
    claim_expires_at  bigint,
    claim_for_device  boolean,
    claim_handed_to   uuid,
    fence             bigint  NOT NULL DEFAULT 0,
    leases            uuid[]  NOT NULL DEFAULT '{}',
    former_leases     uuid[]  NOT NULL DEFAULT '{}',
    committed_by      uuid,
    doubt             jsonb,
    alternate_key     bigint,
    alternate         bytea,
    rejected_in_a_row integer NOT NULL DEFAULT 0,
    -- Refresh tokens that are used up: the newest 64, by half of their hash.
    retired           bytea[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (user_id, name),
    CHECK ((tokens IS NULL) = (tokens_key IS NULL)),
    CHECK ((tokens IS NULL) = (health = 'deleted')),
    CHECK ((alternate IS NULL) = (alternate_key IS NULL)),
    CHECK (num_nulls(claim_lease, claim_node, claim_incarnation, claim_purpose, claim_taken_at, claim_expires_at,
                     claim_for_device) IN (0, 7))
) WITH (fillfactor = 70);

-- Ciphertext and hashes do not compress.
ALTER TABLE lockstep.grants
    ALTER COLUMN tokens SET STORAGE EXTERNAL,
    ALTER COLUMN alternate SET STORAGE EXTERNAL,
    ALTER COLUMN retired SET STORAGE EXTERNAL;

CREATE INDEX grants_due ON lockstep.grants (provider, look_at)
    WHERE claim_lease IS NULL AND NOT parked AND look_at IS NOT NULL;
CREATE INDEX grants_claimed ON lockstep.grants (provider, claim_expires_at) WHERE claim_lease IS NOT NULL;

-- When grants were last used: written often and by itself, so that a use does not rewrite a grant.
CREATE TABLE lockstep.uses (
    user_id text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    used    bigint NOT NULL,
    PRIMARY KEY (user_id, name)
) WITH (fillfactor = 70);

-- When users are usually active.
CREATE TABLE lockstep.hours (
    user_id text COLLATE "C" PRIMARY KEY,
    hours   bytea NOT NULL
);

CREATE TABLE lockstep.devices (
    id          uuid PRIMARY KEY,
    user_id     text COLLATE "C" NOT NULL REFERENCES lockstep.users,
    kind        text     NOT NULL,
    name        text     NOT NULL,
    redeemer    boolean  NOT NULL,
    may_offer   boolean  NOT NULL,
    priority    smallint,
    enrolled_at bigint   NOT NULL,
    generation  bigint   NOT NULL,
    newest      bytea    NOT NULL CHECK (length(newest) = 32),
    parent      bytea    CHECK (length(parent) = 32),
    revoked_at  bigint,
    last_seen   bigint,
    acked       bigint   NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX devices_of_users ON lockstep.devices (user_id) WHERE revoked_at IS NULL;
CREATE INDEX devices_revoked ON lockstep.devices (revoked_at, id) WHERE revoked_at IS NOT NULL;

CREATE TABLE lockstep.slaves (
    hash       bytea  PRIMARY KEY CHECK (length(hash) = 32),
    user_id    text COLLATE "C" NOT NULL,
    device     uuid   NOT NULL,
    grant_name text COLLATE "C" NOT NULL,
    made_at    bigint NOT NULL
);
CREATE INDEX slaves_of_devices ON lockstep.slaves (device);
CREATE INDEX slaves_of_grants ON lockstep.slaves (user_id, grant_name);

-- The commit number rises by as much as revisions do. Here and not in the statements, so that none can forget it.
CREATE FUNCTION lockstep.count_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    risen bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT sum(revision) INTO risen FROM new_rows;
    ELSE
        SELECT (SELECT sum(revision) FROM new_rows) - (SELECT sum(revision) FROM old_rows) INTO risen;
    END IF;
    IF risen > 0 THEN
        UPDATE lockstep.marks SET commits = commits + risen WHERE part = pg_backend_pid() % 64;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_inserts AFTER INSERT ON lockstep.grants
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION lockstep.count_changes();
CREATE TRIGGER count_updates AFTER UPDATE ON lockstep.grants
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION lockstep.count_changes();
