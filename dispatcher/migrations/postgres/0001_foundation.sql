-- Times are microseconds since 1970, UTC. Ids are UUIDs. JSON is text: it is shown, never searched.

-- What all replicas share: the key that signs orders, the keys that AMQP passwords are derived from,
-- that the secret variables of jobs are sealed with, and that submissions are recognised by.
CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE api_tokens (
    id         UUID PRIMARY KEY,
    name       TEXT NOT NULL,
    sha256     BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE TABLE clusters (
    id             UUID PRIMARY KEY,
    name           TEXT NOT NULL UNIQUE,
    created_at     BIGINT NOT NULL,
    -- Ed25519, 32 bytes; null until a runner has enrolled.
    public_key     BYTEA,
    last_contact   BIGINT,
    runner_version TEXT,
    -- By how many seconds the runner's clock is ahead of ours, if that is worth telling.
    clock_skew     BIGINT,
    -- JSON array of {name, max_run_seconds}.
    profiles       TEXT NOT NULL,
    -- JSON object: what it can be chosen by, besides its name.
    labels         TEXT NOT NULL
);

CREATE TABLE join_tokens (
    sha256      BYTEA PRIMARY KEY,
    cluster_id  UUID NOT NULL REFERENCES clusters (id),
    expires_at  BIGINT NOT NULL,
    -- The first key that was enrolled with it; no other ever can be.
    used_by_key BYTEA
);
CREATE INDEX join_tokens_by_cluster ON join_tokens (cluster_id);

-- What is uploaded piece by piece: archives of attached files, what commands read, and what they leave.
CREATE TABLE uploads (
    -- Its blobs are under this id, so what is begun anew never meets a blob of what was there before.
    id           UUID PRIMARY KEY,
    -- Which it is: files/DIGEST/OWNER, stdin/JOB, artifacts/JOB.
    key          TEXT NOT NULL UNIQUE,
    -- Whose archive it is; null for what belongs to a job.
    owner        TEXT,
    -- How long the whole is, once somebody has stated it.
    total_bytes  BIGINT,
    -- How much of it is stored, durably, and how much of that was handed on and is needed no more.
    stored_bytes BIGINT NOT NULL,
    taken_bytes  BIGINT NOT NULL,
    -- Whether all of it is stored and, where it has a digest, that was compared.
    complete     BOOLEAN NOT NULL,
    -- When it grew last, or a job used it.
    touched_at   BIGINT NOT NULL
);
CREATE INDEX uploads_by_age ON uploads (touched_at) WHERE owner IS NOT NULL;

-- Which blob holds which part of an upload. The parts touch and do not overlap.
CREATE TABLE upload_parts (
    upload_id   UUID NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    from_offset BIGINT NOT NULL,
    to_offset   BIGINT NOT NULL,
    blob        TEXT NOT NULL,
    PRIMARY KEY (upload_id, from_offset)
);

CREATE TABLE jobs (
    id                  UUID PRIMARY KEY,
    cluster_id          UUID NOT NULL REFERENCES clusters (id),
    profile             TEXT NOT NULL,
    command             TEXT NOT NULL,
    submitted_by        TEXT NOT NULL,
    submitted_at        BIGINT NOT NULL,
    start_deadline      BIGINT NOT NULL,
    run_timeout_seconds BIGINT,
    idempotency_key     UUID NOT NULL,
    -- A keyed digest: a short secret cannot be guessed from it.
    request_digest      BYTEA NOT NULL,
    -- The archive that the command finds, as JSON, and which upload it is; null when that is not kept any more.
    files               TEXT,
    files_upload        UUID REFERENCES uploads (id) ON DELETE SET NULL,
    -- Variables, as JSON. Of the secret ones only the names; their values are sealed, and erased when the job ends.
    environment         TEXT NOT NULL,
    secret_names        TEXT NOT NULL,
    secrets_sha256      BYTEA,
    sealed_secrets      BYTEA,
    -- Whether the command is given something to read.
    stdin               BOOLEAN NOT NULL,
    -- The schedule that made it, and at which of its ticks; null for a person's.
    schedule_id         UUID,
    tick                BIGINT,
    -- The fan-out that it is a part of, if it is.
    fanout_id           UUID,
    -- The state's name, to search by, and the whole state as JSON. Written together, by transitions only.
    state               TEXT NOT NULL,
    state_detail        TEXT NOT NULL,
    version             BIGINT NOT NULL,
    -- What the state no longer says when it has moved on.
    runner              TEXT,
    pod                 UUID,
    permitted_at        BIGINT,
    -- When a started job of which nothing is heard is given up; null until it is permitted to start.
    give_up_at          BIGINT,
    -- How often it was queued again because its pod was lost before the start, and which pod that was last.
    retries             BIGINT NOT NULL,
    retried_pod         UUID,
    -- What the runner said last about why the job is not getting on, as JSON.
    waiting             TEXT,
    -- How much of the output log is stored, durably.
    log_bytes           BIGINT NOT NULL,
    -- When it was over, and when its output, files and artifacts were given up after that.
    ended_at            BIGINT,
    output_expired_at   BIGINT,
    -- The broker's last confirm, how many there were, and when to publish again if nobody takes the job.
    published_at        BIGINT,
    publications        BIGINT NOT NULL,
    republish_at        BIGINT,
    UNIQUE (submitted_by, idempotency_key)
);
CREATE INDEX jobs_by_cluster ON jobs (cluster_id, id);
CREATE INDEX jobs_by_fanout ON jobs (fanout_id) WHERE fanout_id IS NOT NULL;
CREATE INDEX jobs_by_files ON jobs (files_upload) WHERE files_upload IS NOT NULL;
-- The sweeper and the runners look only for jobs that are not over: these stay as small as the work in hand.
CREATE INDEX jobs_to_expire ON jobs (start_deadline) WHERE state IN ('queued', 'claimed', 'starting');
CREATE INDEX jobs_to_republish ON jobs (republish_at) WHERE state IN ('queued', 'claimed', 'starting');
CREATE INDEX jobs_started ON jobs (cluster_id, state) WHERE state IN ('running', 'contact_lost', 'cancelling');
CREATE INDEX jobs_to_give_up ON jobs (give_up_at) WHERE state IN ('running', 'contact_lost', 'cancelling');
CREATE INDEX jobs_to_forget ON jobs (ended_at) WHERE ended_at IS NOT NULL AND output_expired_at IS NULL;
CREATE INDEX jobs_open ON jobs (cluster_id)
    WHERE state IN ('queued', 'claimed', 'starting', 'running', 'contact_lost', 'cancelling');

-- What is run at times of its own. A schedule that was deleted stays, for its ledger.
CREATE TABLE schedules (
    id              UUID PRIMARY KEY,
    name            TEXT NOT NULL,
    -- Grows with each change of what it is to do.
    revision        BIGINT NOT NULL,
    -- Grows with each change of the row: what a compare-and-set compares.
    version         BIGINT NOT NULL,
    owner           TEXT NOT NULL,
    -- JSON, without the values of secret variables, which are sealed.
    spec            TEXT NOT NULL,
    secret_names    TEXT NOT NULL,
    sealed_secrets  BYTEA,
    -- Digest of all that was asked, with the secrets: the same again is no change. Keyed, as that of jobs is.
    request_digest  BYTEA NOT NULL,
    files_upload    UUID REFERENCES uploads (id),
    -- Whether it is at work, as JSON.
    state           TEXT NOT NULL,
    -- The ticks until then, including, are in the ledger; none of them is ever decided again.
    decided_until   BIGINT NOT NULL,
    -- When to look at it again. Computed from the rest, and only a hint: every look computes anew.
    due_at          BIGINT,
    skip_next       BOOLEAN NOT NULL,
    -- How many runs have failed since one last ended well.
    failures        BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    changed_at      BIGINT NOT NULL,
    deleted_at      BIGINT
);
CREATE UNIQUE INDEX schedules_by_name ON schedules (name) WHERE deleted_at IS NULL;
CREATE INDEX schedules_by_due ON schedules (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX schedules_by_files ON schedules (files_upload) WHERE files_upload IS NOT NULL;

-- The ledger: what became of each tick, for ever. Who inserts it has decided it; there is no second.
CREATE TABLE schedule_ticks (
    schedule_id    UUID NOT NULL REFERENCES schedules (id),
    revision       BIGINT NOT NULL,
    instant        BIGINT NOT NULL,
    by_hand        BOOLEAN NOT NULL,
    outcome        TEXT NOT NULL,
    cause          TEXT,
    message        TEXT NOT NULL,
    decided_at     BIGINT NOT NULL,
    lateness       BIGINT,
    -- Until when it may start while it waits, and whether it came too late and is run all the same.
    start_deadline BIGINT NOT NULL,
    caught_up      BOOLEAN NOT NULL,
    attempts       BIGINT NOT NULL,
    job_id         UUID,
    fanout_id      UUID,
    -- Whether its run, or the wait for it, goes on, and when to look at it again besides at its job's end.
    open           BOOLEAN NOT NULL,
    look_at        BIGINT NOT NULL,
    told_long      BOOLEAN NOT NULL,
    result         TEXT,
    -- The key of whoever asked for it: the same request twice is one tick.
    request_key    UUID,
    PRIMARY KEY (schedule_id, instant, revision),
    UNIQUE (schedule_id, request_key)
);
CREATE INDEX schedule_ticks_open ON schedule_ticks (schedule_id) WHERE open;

-- When schedules may run, and when not.
CREATE TABLE calendars (
    name        TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,
    ics         TEXT NOT NULL,
    -- The zone of times in it that have none.
    time_zone   TEXT,
    imported_by TEXT NOT NULL,
    imported_at BIGINT NOT NULL
);

-- What webhooks are still to be told. A delivery leaves the table when it was answered, or given up.
CREATE TABLE notifications (
    id           UUID PRIMARY KEY,
    schedule_id  UUID NOT NULL REFERENCES schedules (id),
    -- Once for each tick, event and address, whoever notices it.
    dedup        TEXT NOT NULL UNIQUE,
    url          TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    attempts     BIGINT NOT NULL,
    -- When it was answered with 2xx or given up, and what went wrong last.
    done_at      BIGINT,
    last_error   TEXT
);
CREATE INDEX notifications_by_lease ON notifications (leased_until) WHERE done_at IS NULL;

-- What happened to a job, for people: each row in the transaction of what it tells of.
CREATE TABLE job_story (
    job_id  UUID NOT NULL REFERENCES jobs (id),
    -- The job's version that came of it, which is given once.
    seq     BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    who     TEXT NOT NULL,
    step    TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (job_id, seq)
);

-- Jobs that the broker has not confirmed yet.
CREATE TABLE outbox (
    job_id       UUID PRIMARY KEY REFERENCES jobs (id),
    created_at   BIGINT NOT NULL,
    -- Until then a relay is busy with it, or it rests after a failure.
    leased_until BIGINT NOT NULL,
    attempts     BIGINT NOT NULL,
    last_error   TEXT
);
CREATE INDEX outbox_by_lease ON outbox (leased_until);
CREATE INDEX outbox_by_age ON outbox (created_at);

-- One command on many clusters.
CREATE TABLE fanouts (
    id              UUID PRIMARY KEY,
    -- What was asked for, as JSON, without secrets. Of these the names; their values are sealed, and erased when it
    -- cannot go on any more.
    spec            TEXT NOT NULL,
    secret_names    TEXT NOT NULL,
    sealed_secrets  BYTEA,
    -- Which upload the files of its jobs are; null when they are not kept for it any more.
    files_upload    UUID REFERENCES uploads (id) ON DELETE SET NULL,
    -- The limits in numbers, as JSON: percentages are of the clusters that there were.
    limits          TEXT NOT NULL,
    submitted_by    TEXT NOT NULL,
    submitted_at    BIGINT NOT NULL,
    idempotency_key UUID NOT NULL,
    -- A keyed digest, as of a job.
    request_digest  BYTEA NOT NULL,
    -- The state's name, to search by, and the whole state as JSON. Written together, by transitions only.
    state           TEXT NOT NULL,
    state_detail    TEXT NOT NULL,
    -- How often it was made to go on.
    round           BIGINT NOT NULL,
    version         BIGINT NOT NULL,
    -- Until when it can be made to go on, once it has stopped; null if it cannot, or has not.
    resumable_until BIGINT,
    UNIQUE (submitted_by, idempotency_key)
);
CREATE INDEX fanouts_open ON fanouts (id) WHERE state IN ('running', 'stopping', 'cancelling');
CREATE INDEX fanouts_to_forget ON fanouts (resumable_until) WHERE resumable_until IS NOT NULL;
CREATE INDEX fanouts_by_files ON fanouts (files_upload) WHERE files_upload IS NOT NULL;

-- The clusters of a fan-out, chosen when it was submitted.
CREATE TABLE fanout_clusters (
    fanout_id    UUID NOT NULL REFERENCES fanouts (id),
    -- The order in which they start.
    position     BIGINT NOT NULL,
    cluster_id   UUID NOT NULL REFERENCES clusters (id),
    canary       BOOLEAN NOT NULL,
    -- As of a fan-out. Written in the transaction of the fan-out's own compare-and-set, and only there.
    state        TEXT NOT NULL,
    state_detail TEXT NOT NULL,
    round        BIGINT NOT NULL,
    attempt      BIGINT NOT NULL,
    job_id       UUID REFERENCES jobs (id),
    PRIMARY KEY (fanout_id, position),
    UNIQUE (fanout_id, cluster_id)
);

-- What happened to a fan-out, for people: each row in the transaction of what it tells of.
CREATE TABLE fanout_story (
    fanout_id UUID NOT NULL REFERENCES fanouts (id),
    -- The fan-out's version that came of it, which is given once.
    seq       BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    who       TEXT NOT NULL,
    step      TEXT NOT NULL,
    -- Of which of its clusters it tells, if of one.
    cluster   TEXT,
    message   TEXT NOT NULL,
    PRIMARY KEY (fanout_id, seq)
);

-- Which blob holds which part of a job's output log. The parts touch and do not overlap.
CREATE TABLE job_output (
    job_id      UUID NOT NULL REFERENCES jobs (id),
    from_offset BIGINT NOT NULL,
    to_offset   BIGINT NOT NULL,
    blob        TEXT NOT NULL,
    -- Where in each stream alone the part begins, and how much of it the part has.
    stdout_from  BIGINT NOT NULL,
    stdout_bytes BIGINT NOT NULL,
    stderr_from  BIGINT NOT NULL,
    stderr_bytes BIGINT NOT NULL,
    PRIMARY KEY (job_id, from_offset)
);

-- Blobs that nothing refers to any more: all whose keys begin with this are to be deleted. No such key is
-- ever used again.
CREATE TABLE garbage (
    prefix TEXT PRIMARY KEY,
    since  BIGINT NOT NULL
);

CREATE TABLE audit (
    id      UUID PRIMARY KEY,
    at      BIGINT NOT NULL,
    who     TEXT NOT NULL,
    action  TEXT NOT NULL,
    object  TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX audit_by_object ON audit (object, at);
